//! How the ranks find each other: the store, what each says of itself, and one
//! verdict for all.

use super::engine::{Reached, Store};
use super::sockets;
use super::surroundings::Placement;
use crate::config::differences;
use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Between two attempts to reach a store that is not there yet.
const RETRY: Duration = Duration::from_millis(200);

/// A connection of its own to the group's store, which rank 0 serves unless its launcher does.
///
/// Errors: the address cannot be bound (rank 0) or does not answer in time (the others).
pub fn open_store(placement: &Placement, timeout: Duration) -> Result<Store> {
    let listening = match placement.rank == 0 && placement.rank_zero_serves {
        true => Some(listen(placement)?),
        false => None,
    };
    join_store(placement, listening, timeout)
}

/// As [`open_store`], for a store that is served already.
pub fn join_store(placement: &Placement, listening: Option<OwnedFd>, timeout: Duration) -> Result<Store> {
    let Placement { host, port, .. } = placement;
    if listening.is_none() {
        wait_for(placement, timeout)?;
    }
    let prefix = format!("flatnce/{}", placement.job);
    let store = Store::open(host, *port, listening, &prefix, timeout)
        .with_context(|| format!("what listens at {host}:{port} is not the store of this group"))?;
    sockets::fail_after(*port, timeout);
    Ok(store)
}

/// The store's socket, bound where MASTER_ADDR says and nowhere else.
fn listen(placement: &Placement) -> Result<OwnedFd> {
    let Placement { host, port, .. } = placement;
    let bound = TcpListener::bind((host.as_str(), *port));
    bound.map(OwnedFd::from).map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => {
            anyhow!("port {port} of {host} is in use by another program; choose another MASTER_PORT")
        }
        ErrorKind::AddrNotAvailable => anyhow!(
            "MASTER_ADDR {host} is no address of this machine, where rank 0 runs and serves the store; set it to one"
        ),
        _ => anyhow!("the store cannot listen at {host}:{port} ({error}); see MASTER_ADDR and MASTER_PORT"),
    })
}

/// Returns as soon as a store answers at the address.
fn wait_for(placement: &Placement, timeout: Duration) -> Result<()> {
    let Placement { host, port, .. } = placement;
    let deadline = Instant::now() + timeout;
    let left = || deadline.saturating_duration_since(Instant::now()).max(RETRY);
    let mut last = "it has no address".to_owned();
    loop {
        match (host.as_str(), *port).to_socket_addrs() {
            Ok(addresses) => {
                for address in addresses {
                    match is_store(&address, left()) {
                        Ok(true) => return Ok(()),
                        Ok(false) => bail!(
                            "what answers at {host}:{port} is another program and no store; choose another MASTER_PORT \
                             for all ranks"
                        ),
                        Err(why) => last = why,
                    }
                }
            }
            Err(error) => last = error.to_string(),
        }
        if Instant::now() >= deadline {
            bail!(
                "the store at {host}:{port} was not reached within {} s ({last}); it is where MASTER_ADDR and \
                 MASTER_PORT say: is rank 0 running there, and does a firewall let this machine through?",
                timeout.as_secs()
            );
        }
        std::thread::sleep(RETRY);
    }
}

/// Whether what answers at the address is a store. c10d's own client begins with the same words, and waits for the answer
/// without a limit.
///
/// Errors: nothing answers, in words.
fn is_store(address: &SocketAddr, limit: Duration) -> Result<bool, String> {
    const VALIDATE: u8 = 0;
    const MAGIC: u32 = 0x3c85_f7ce;
    const PING: u8 = 13;
    let mut connection = TcpStream::connect_timeout(address, limit).map_err(|error| error.to_string())?;
    let nonce = std::process::id();
    let words = [&[VALIDATE][..], &MAGIC.to_ne_bytes(), &[PING], &nonce.to_ne_bytes()].concat();
    let mut asked = || -> std::io::Result<bool> {
        connection.set_read_timeout(Some(limit))?;
        connection.write_all(&words)?;
        let mut answer = [0; 4];
        connection.read_exact(&mut answer)?;
        Ok(answer == nonce.to_ne_bytes())
    };
    asked().map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
            "what listens there hangs up without an answer: is it another program?".to_owned()
        }
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            "what listens there does not answer: is it another program?".to_owned()
        }
        _ => error.to_string(),
    })
}

/// Where the others reach this machine: the card that GLOO_SOCKET_IFNAME names, else the address from which this
/// machine reaches the store.
pub fn reached(placement: &Placement) -> Result<Reached> {
    if let Ok(card) = std::env::var("GLOO_SOCKET_IFNAME")
        && !card.is_empty()
    {
        return Ok(Reached::Card(card));
    }
    let Placement { host, port, .. } = placement;
    let ours = (host.as_str(), *port).to_socket_addrs().and_then(|addresses| {
        let mut last = Err(ErrorKind::AddrNotAvailable.into());
        for address in addresses {
            // Connecting a datagram socket sends nothing; it asks the system for the route.
            let any = if address.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
            last = UdpSocket::bind(any).and_then(|socket| {
                socket.connect(address)?;
                Ok(socket.local_addr()?.ip())
            });
            if last.is_ok() {
                break;
            }
        }
        last
    });
    let ours = ours.with_context(|| {
        format!("this machine has no address towards {host}:{port}; name its network card with GLOO_SOCKET_IFNAME")
    })?;
    Ok(Reached::Address(ours.to_string()))
}

/// What may differ between ranks: where they run, what they say, and how they were typed.
const OWN: [&str; 9] =
    ["command", "workers", "talk", "log_format", "save_dir", "feature_cache", "device", "nproc", "dry_run"];

/// What a rank says of itself, and all must have in common: the program's version and its settings.
pub fn hello(settings: &Value) -> Value {
    let mut settings = settings.clone();
    if let Some(fields) = settings.as_object_mut() {
        fields.retain(|name, _| !OWN.contains(&name.as_str()));
    }
    // Every machine may keep its data elsewhere, and have another number of cores.
    for (place, name) in [("pretrain/data", "root"), ("evaluate/data", "root"), ("pretrain", "workers")] {
        if let Some(fields) = settings.pointer_mut(&format!("/job/{place}")).and_then(Value::as_object_mut) {
            fields.remove(name);
        }
    }
    json!({ "version": env!("CARGO_PKG_VERSION"), "settings": settings })
}

/// Checks that all ranks are there and were started alike; `hello` is what this one says of itself.
///
/// Errors: the same one on every rank that came.
pub fn agree(store: &Store, placement: &Placement, hello: &Value, timeout: Duration) -> Result<()> {
    let Placement { rank, world_size, attempt, .. } = placement;
    let key = |rank: usize| format!("{attempt}/hello/{rank}");
    let (verdict_key, read_key) = (format!("{attempt}/verdict"), format!("{attempt}/read"));
    store.set(&key(*rank), hello.to_string().as_bytes())?;
    let verdict = if *rank == 0 {
        let verdict = judge(store, *world_size, hello, &key, timeout);
        store.set(&verdict_key, verdict.as_bytes())?;
        if !verdict.is_empty() {
            stay_until_read(store, *world_size, &key, &read_key);
        }
        verdict
    } else {
        // Rank 0 waits as long for the last of the others.
        let told = store.get(&verdict_key, timeout + Duration::from_secs(5));
        let told = told.with_context(|| format!("rank 0 has gone, or said nothing within {} s", timeout.as_secs()))?;
        store.add(&read_key, 1)?;
        String::from_utf8(told)?
    };
    if verdict.is_empty() { Ok(()) } else { Err(anyhow!(verdict)) }
}

/// The store goes with rank 0, so rank 0 waits until those who came know why.
fn stay_until_read(store: &Store, world_size: usize, key: &dyn Fn(usize) -> String, read_key: &str) {
    let deadline = Instant::now() + Duration::from_secs(5);
    let came = (1..world_size).filter(|&rank| store.has(&key(rank)).unwrap_or(false)).count() as i64;
    while Instant::now() < deadline && store.add(read_key, 0).is_ok_and(|read| read < came) {
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn judge(store: &Store, world_size: usize, ours: &Value, key: &dyn Fn(usize) -> String, timeout: Duration) -> String {
    let deadline = Instant::now() + timeout;
    for rank in 1..world_size {
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok(theirs) = store.get(&key(rank), left) else {
            let missing: Vec<String> = (rank..world_size)
                .filter(|&rank| !store.has(&key(rank)).unwrap_or(false))
                .map(|rank| rank.to_string())
                .collect();
            return format!(
                "rank {} of {world_size} did not come within {} s; see what it says, or wait longer with \
                 --distributed-timeout",
                missing.join(", "),
                timeout.as_secs()
            );
        };
        let theirs = serde_json::from_slice(&theirs).unwrap_or(Value::Null);
        let differing = differences(ours, &theirs).into_iter();
        let differing: Vec<String> =
            differing.map(|(path, ours, theirs)| format!("{path} {theirs} instead of {ours}")).collect();
        if !differing.is_empty() {
            return format!(
                "rank {rank} was started differently from rank 0: {}; start every rank with the same program and the \
                 same flags",
                differing.join(", ")
            );
        }
    }
    String::new()
}
