//! Ranks on this machine, for tests that start them.

use flatnce::distributed::{Launcher, Placement};
use std::net::TcpListener;

/// A port that nobody listened at a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its number").port()
}

/// A rank's place as torchrun would give it.
#[allow(dead_code, reason = "some tests start whole programs")]
pub fn place(rank: usize, world_size: usize, port: u16) -> Placement {
    Placement {
        rank,
        world_size,
        local_rank: rank,
        local_world_size: Some(world_size),
        host: "127.0.0.1".to_owned(),
        port,
        rank_zero_serves: true,
        attempt: 0,
        job: String::new(),
        launcher: Launcher::Torchrun,
    }
}
