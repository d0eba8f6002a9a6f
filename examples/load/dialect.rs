//! What is spoken with the server under test: the relay's own words, or those of a peer.

use clap::ValueEnum;

use crate::cli::Mode;
use crate::nats;
use crate::words::{self, Id, Letter, Text};

/// What is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Dialect {
    /// The whole protocol.
    Sealpost,
    /// Of the protocol only Register, Send, Receive and Ack, without anything optional.
    Plain,
    /// NATS over WebSocket.
    Nats,
}

impl Dialect {
    /// Whether a sender is told that its message is taken.
    pub fn has_acks(self) -> bool {
        self != Self::Nats
    }

    /// A message as this server takes it; see [`Letter::new`].
    pub fn letter(self, sender: usize, from: &Id, payload: usize, ttl: u64) -> Letter {
        match self {
            Self::Sealpost | Self::Plain => Letter::new(sender, from, payload, ttl),
            Self::Nats => nats::letter(Text::new(sender, from, &words::data(payload), ttl)),
        }
    }

    /// Whether this can be done where this is spoken.
    ///
    /// # Errors
    ///
    /// Says what the server has not.
    pub fn check(self, mode: &Mode) -> Result<(), String> {
        let missing = match mode {
            _ if self == Self::Sealpost => return Ok(()),
            Mode::Pairs(pairs) if !pairs.resumable => return Ok(()),
            Mode::Idle(idle) if !idle.resumable && idle.large.is_none() => return Ok(()),
            Mode::Pairs(_) => "--resumable",
            Mode::Idle(idle) if idle.resumable => "--resumable",
            Mode::Idle(_) => "--large",
            Mode::Offline(_) | Mode::Drain(_) => "the queues of `offline` and `drain`",
            Mode::Fanout(_) => "`fanout`",
            Mode::Hostile(_) => "`hostile`",
            Mode::Expiry(_) => "the queues of `expiry`",
        };
        let value = self.to_possible_value();
        let name = value.as_ref().map_or("this", |value| value.get_name());
        Err(format!("--dialect {name} is for `pairs` and `idle`: it is without {missing}"))
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::Cli;
    use clap::Parser as _;

    fn check(line: &str) -> Result<(), String> {
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        cli.common.dialect.check(&cli.mode)
    }

    #[test]
    fn peers_are_asked_for_nothing_that_they_have_not() {
        for peer in ["nats", "plain"] {
            let check = |rest: &str| check(&format!("load --dialect {peer} {rest}"));
            for possible in ["pairs --in-flight 16", "pairs --rate 100", "idle"] {
                assert_eq!(check(possible), Ok(()), "{peer} {possible}");
            }
            for refused in
                ["pairs --resumable", "idle --resumable", "idle --large 9", "offline", "fanout"]
            {
                let why = check(refused).unwrap_err();
                assert!(why.contains(peer), "{peer} {refused}: {why}");
            }
        }
    }

    #[test]
    fn the_relay_is_asked_for_everything() {
        for mode in ["pairs --resumable", "idle --large 9", "offline", "drain --tokens t", "fanout"]
        {
            assert_eq!(check(&format!("load {mode}")), Ok(()), "{mode}");
        }
    }
}
