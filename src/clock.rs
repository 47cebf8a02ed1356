//! The time of day.

use chrono::{DateTime, Local};
use std::time::SystemTime;

/// Now, in this machine's time zone; also where its clock stands before 1970.
pub fn now() -> DateTime<Local> {
    at(SystemTime::now())
}

fn at(time: SystemTime) -> DateTime<Local> {
    time.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_clock_before_1970_is_read_too() {
        let time = at(SystemTime::UNIX_EPOCH - Duration::from_millis(1500));
        assert_eq!(time.timestamp_millis(), -1500);
    }
}
