//! Turns the file's numbers into what a visitor's browser would send.

use std::net::Ipv4Addr;

/// Where visitors' addresses begin: 100.64.0.0/10, shared address space that belongs to nobody on the internet.
const ADDRESSES_START: u32 = 0x6440_0000;

/// How many addresses that block has; the file's largest number is below 400,000.
pub(crate) const ADDRESSES: u32 = 1 << 22;

/// The address of a visitor number: one each, `None` beyond the block.
pub(crate) fn address(number: u32) -> Option<Ipv4Addr> {
    (number < ADDRESSES).then(|| Ipv4Addr::from_bits(ADDRESSES_START + number))
}

/// A user agent that a device and an operating system of these numbers might send; one each.
pub(crate) fn user_agent(device: u32, os: u32) -> String {
    match device {
        // The few named by number 0 are mostly not Android; a telephone of the other kind stands for them.
        0 => format!(
            "Mozilla/5.0 (iPhone; CPU iPhone OS 17_{} like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.{} Mobile/15E{os} Safari/604.1",
            os % 7,
            os % 7
        ),
        _ => format!(
            "Mozilla/5.0 (Linux; Android {}; Model {device}) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.{}.{os} Mobile Safari/537.36",
            8 + os % 7,
            6000 + os % 100
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_number_has_an_address_of_its_own_in_the_block() {
        assert_eq!(address(0).unwrap().to_string(), "100.64.0.0");
        assert_eq!(address(257).unwrap().to_string(), "100.64.1.1");
        assert_eq!(
            address(ADDRESSES - 1).unwrap().to_string(),
            "100.127.255.255"
        );
        assert_eq!(address(ADDRESSES), None);
    }

    #[test]
    fn every_device_and_system_has_a_user_agent_of_its_own() {
        let mut seen = HashSet::new();
        for device in 0..40 {
            for os in 0..300 {
                assert!(seen.insert(user_agent(device, os)), "{device} {os}");
            }
        }
    }
}
