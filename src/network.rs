//! Networks of peers: blocks of addresses, and whether an address is in one of them.

use core::net::IpAddr;
use std::fmt;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

/// How the clients of Unix sockets are named among networks: they have no address.
const UNIX: &str = "unix";

/// A block of addresses, or the clients of Unix sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// All addresses with this prefix. An IPv4 address is the same where it comes as IPv6 (`::ffff:a.b.c.d`), and so is a
    /// network of them (`::ffff:a.b.c.d/104`).
    Block(IpNet),
    /// Whoever connects through a Unix socket.
    Unix,
}

/// Several networks; the default is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<Network>);

impl Networks {
    /// These networks.
    pub fn new(networks: Vec<Network>) -> Networks {
        Networks(networks)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an address is in one of them. Takes time linear in their number, which the configuration bounds.
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| matches!(network, Network::Block(block) if block.contains(&address)))
    }

    /// Whether the clients of Unix sockets are among them.
    pub fn contain_unix(&self) -> bool {
        self.0.contains(&Network::Unix)
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Network> {
        self.0.iter()
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Network, String> {
        if text == UNIX {
            return Ok(Network::Unix);
        }
        let block = match text.parse::<IpAddr>() {
            Ok(address) => Ok(IpNet::from(address.to_canonical())),
            Err(_) => text.parse::<IpNet>().map_err(|_| {
                format!("{text:?} is no network; write it as 10.0.0.0/8, 2001:db8::/32, 192.0.2.7 or unix")
            }),
        }?;
        let block = to_canonical(block);
        match block.trunc() == block {
            true => Ok(Network::Block(block)),
            false => Err(format!("{block} has bits behind its prefix; write {}", block.trunc())),
        }
    }
}

/// The IPv4 network that an IPv6 one of mapped addresses is (RFC 4291 §2.5.5.2); any other as it is.
fn to_canonical(block: IpNet) -> IpNet {
    let IpNet::V6(mapped) = block else { return block };
    let prefix = mapped.prefix_len().checked_sub(128 - 32);
    match (mapped.addr().to_ipv4_mapped(), prefix) {
        (Some(address), Some(prefix)) => Ipv4Net::new(address, prefix).map_or(block, IpNet::V4),
        (_, _) => block,
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Network::Block(block) => block.fmt(f),
            Network::Unix => f.write_str(UNIX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> Networks {
        Networks::new(texts.iter().map(|text| text.parse().expect(text)).collect())
    }

    #[test]
    fn an_address_is_in_the_blocks_with_its_prefix() {
        let some = networks(&["10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "unix"]);
        for inside in ["10.1.2.3", "::ffff:10.1.2.3", "192.0.2.7", "2001:db8:ffff::1"] {
            assert!(some.contain(inside.parse().expect(inside)), "{inside}");
        }
        for outside in ["11.0.0.0", "192.0.2.8", "2001:db9::1", "::1", "::a01:203"] {
            assert!(!some.contain(outside.parse().expect(outside)), "{outside}");
        }
        assert!(some.contain_unix() && !networks(&["0.0.0.0/0", "::/0"]).contain_unix());
        assert!(networks(&["0.0.0.0/0"]).contain(IpAddr::from([1, 2, 3, 4])) && !Networks::default().contain_unix());
    }

    #[test]
    fn a_network_of_mapped_addresses_is_the_ipv4_network() {
        for (mapped, plain) in [
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:192.0.2.7/128", "192.0.2.7/32"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(mapped.parse::<Network>().expect(mapped).to_string(), plain);
        }
        let some = networks(&["::ffff:10.0.0.0/104"]);
        for inside in ["10.1.2.3", "::ffff:10.1.2.3"] {
            assert!(some.contain(inside.parse().expect(inside)), "{inside}");
        }
        assert!(!some.contain(IpAddr::from([11, 0, 0, 0])));
        let told = "::ffff:10.1.0.0/104".parse::<Network>().expect_err("bits behind the prefix");
        assert_eq!(told, "10.1.0.0/8 has bits behind its prefix; write 10.0.0.0/8");
    }

    #[test]
    fn what_is_no_network_is_told_how_to_be_one() {
        for text in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "localhost", "UNIX", "10.0.0.0/8 "] {
            let told = text.parse::<Network>().expect_err(text);
            assert_eq!(
                told,
                format!("{text:?} is no network; write it as 10.0.0.0/8, 2001:db8::/32, 192.0.2.7 or unix")
            );
        }
        let told = "10.1.0.0/8".parse::<Network>().expect_err("bits behind the prefix");
        assert_eq!(told, "10.1.0.0/8 has bits behind its prefix; write 10.0.0.0/8");
        for text in ["10.0.0.0/8", "::1/128", "0.0.0.0/0", "unix"] {
            assert_eq!(text.parse::<Network>().expect(text).to_string(), text);
        }
        assert_eq!("192.0.2.7".parse::<Network>().expect("an address").to_string(), "192.0.2.7/32");
    }
}
