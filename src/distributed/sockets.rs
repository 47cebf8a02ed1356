//! Connections that notice a network or a store that has gone. c10d waits for the store's
//! answers without a limit, and TCP by itself tries for a quarter of an hour.

use std::mem::{MaybeUninit, size_of, size_of_val};
use std::os::fd::RawFd;
use std::time::Duration;

/// Longest silence of a store whose machine or network is there.
const LONGEST: Duration = Duration::from_secs(30);

/// Lets this process's connections to `port` fail after `limit` without an answer of the store, and sooner without one
/// of the other machine's system.
/// (c10d keeps their numbers to itself; those of other connections to the same port gain the same.)
pub fn fail_after(port: u16, limit: Duration) {
    let seconds = limit.min(LONGEST).as_secs().max(2) as libc::c_int;
    // Of what is read after a question; c10d waits for events otherwise.
    let answer = libc::timeval { tv_sec: limit.as_secs().max(1) as libc::time_t, tv_usec: 0 };
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    for entry in entries.flatten() {
        if let Some(socket) = entry.file_name().to_str().and_then(|name| name.parse().ok())
            && peer_port(socket) == Some(port)
        {
            set(socket, libc::SOL_SOCKET, libc::SO_RCVTIMEO, answer);
            set(socket, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1);
            set(socket, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, (seconds / 2).max(1));
            set(socket, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, (seconds / 6).max(1));
            set(socket, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, 3);
            set(socket, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, 1000 * seconds);
        }
    }
}

/// The port at the other end; `None` for what is no connected internet socket.
fn peer_port(socket: RawFd) -> Option<u16> {
    let mut address = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: the address has room for `length` bytes and is zero where the system writes nothing.
    let address = unsafe {
        if libc::getpeername(socket, address.as_mut_ptr().cast(), &raw mut length) != 0 {
            return None;
        }
        address.assume_init()
    };
    let port = match i32::from(address.ss_family) {
        // SAFETY: the family says which of the address types these bytes are.
        libc::AF_INET => unsafe { (*(&raw const address).cast::<libc::sockaddr_in>()).sin_port },
        // SAFETY: as above.
        libc::AF_INET6 => unsafe { (*(&raw const address).cast::<libc::sockaddr_in6>()).sin6_port },
        _ => return None,
    };
    Some(u16::from_be(port))
}

/// An option that cannot be set leaves the connection as it was.
fn set<T>(socket: RawFd, level: libc::c_int, name: libc::c_int, value: T) {
    // SAFETY: the value outlives the call, which is given its size.
    unsafe {
        libc::setsockopt(socket, level, name, (&raw const value).cast(), size_of_val(&value) as libc::socklen_t);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    #[test]
    fn connections_to_the_port_are_found_and_no_others() {
        let (one, other) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let port = one.local_addr().unwrap().port();
        let ours = TcpStream::connect(one.local_addr().unwrap()).unwrap();
        let foreign = TcpStream::connect(other.local_addr().unwrap()).unwrap();
        fail_after(port, Duration::from_secs(12));
        let read = |socket: RawFd| {
            let (mut value, mut length) = (0 as libc::c_int, size_of::<libc::c_int>() as libc::socklen_t);
            // SAFETY: the value has room for what is asked for.
            let answer = unsafe {
                let name = libc::TCP_USER_TIMEOUT;
                libc::getsockopt(socket, libc::IPPROTO_TCP, name, (&raw mut value).cast(), &raw mut length)
            };
            assert_eq!(answer, 0);
            value
        };
        assert_eq!((read(ours.as_raw_fd()), read(foreign.as_raw_fd())), (12_000, 0));
        assert_eq!(ours.read_timeout().unwrap(), Some(Duration::from_secs(12)));
        assert_eq!(peer_port(one.as_raw_fd()), None);
    }
}
