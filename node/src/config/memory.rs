//! How much memory models may take: as it is written, and as much as the machine suggests.

use std::fmt;
use std::fs;
use std::path::Path;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

/// Bytes, never none. Written as a number, or with a suffix: `8GiB`, `512MiB`, `2GB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Memory(u64);

/// What is no amount of memory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no amount of memory: write a number of bytes, or one with KiB, MiB, GiB, TiB, KB, MB, GB or TB"
)]
pub struct NoMemory(String);

impl Memory {
    /// No limit, for machines that do not say how much they have.
    pub const UNLIMITED: Self = Self(u64::MAX);

    /// So many bytes; `None` for none.
    pub const fn of_bytes(bytes: u64) -> Option<Self> {
        if bytes == 0 { None } else { Some(Self(bytes)) }
    }

    /// Three quarters of this machine's memory, or of what its container leaves it, or no limit where neither says: the
    /// rest is for the system, for other programs and for this one's network.
    pub fn of_machine() -> Self {
        let read = |path: &Path| fs::read_to_string(path).ok();
        let text = |path| read(Path::new(path)).unwrap_or_default();
        let known = [total(&text(MEMINFO)), group_limit(&text(GROUPS), read)];
        let least = known.into_iter().flatten().min().map(|bytes| bytes / 4 * 3);
        least.and_then(Self::of_bytes).unwrap_or(Self::UNLIMITED)
    }

    /// How many bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

/// The total in the system's words.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1 << 10)
}

/// The least limit of the control groups that this process is in, by the lines `number:controllers:/path` that tell them
/// (cgroups(7)). Limits of the groups above hold, too; a container sees its own group as the root.
fn group_limit(groups: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let limits = groups.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return None,
        };
        let upwards = Path::new(path.trim_start_matches('/')).ancestors();
        upwards.filter_map(|group| read(&Path::new(root).join(group).join(file))?.trim().parse().ok()).min()
    });
    limits.min()
}

impl FromStr for Memory {
    type Err = NoMemory;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
        let suffix = text[digits.len()..].trim_start();
        let unit = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(suffix));
        let count: Option<u64> = digits.parse().ok();
        let bytes = unit.zip(count).and_then(|((_, unit), count)| count.checked_mul(*unit));
        bytes.and_then(Self::of_bytes).ok_or_else(|| NoMemory(text.chars().take(MAX_SHOWN).collect()))
    }
}

impl fmt::Display for Memory {
    /// In the largest unit of 1024 in which it is one at least, to a tenth.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = |(name, unit): &&(&str, u64)| name.ends_with("iB") && *unit <= self.0;
        match UNITS.iter().filter(binary).max_by_key(|(_, unit)| *unit) {
            Some((name, unit)) => write!(f, "{:.1} {name}", self.0 as f64 / *unit as f64),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Memory {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Written;

        impl Visitor<'_> for Written {
            type Value = Memory;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes, as a number or as a text like \"8GiB\"")
            }

            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Memory, E> {
                let bytes = u64::try_from(bytes).ok().and_then(Memory::of_bytes);
                bytes.ok_or_else(|| E::custom(NoMemory("a number below 1".to_owned())))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Memory, E> {
                text.parse().map_err(E::custom)
            }
        }

        from.deserialize_any(Written)
    }
}

/// Where Linux tells of its memory.
const MEMINFO: &str = "/proc/meminfo";
/// And of the control groups that a process is in.
const GROUPS: &str = "/proc/self/cgroup";
/// Of a wrong text, as much as anybody needs to find it.
const MAX_SHOWN: usize = 40;
const UNITS: [(&str, u64); 10] = [
    ("", 1),
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Option<u64> {
        text.parse().ok().map(Memory::bytes)
    }

    #[test]
    fn an_amount_is_written_with_its_unit_or_without() {
        assert_eq!(bytes("8GiB"), Some(8 << 30));
        assert_eq!(bytes("8 gib"), Some(8 << 30));
        assert_eq!(bytes("2GB"), Some(2_000_000_000));
        assert_eq!(bytes("1048576"), Some(1 << 20));
        for wrong in ["", "GiB", "0", "0MiB", "-1", "1.5GiB", "8Gi", "8 bytes", "99999999999TiB", "1é"] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_file_has_it_as_number_or_text() {
        #[derive(Deserialize)]
        struct Line {
            memory: Memory,
        }
        let read = |text: &str| toml::from_str::<Line>(text).ok().map(|line| line.memory.bytes());
        assert_eq!(read("memory = \"512MiB\""), Some(512 << 20));
        assert_eq!(read("memory = 4096"), Some(4096));
        for wrong in ["memory = 0", "memory = -5", "memory = \"much\"", "memory = true"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn people_read_it_in_large_units() {
        assert_eq!(Memory(3 << 29).to_string(), "1.5 GiB");
        assert_eq!(Memory(700).to_string(), "700 bytes");
    }

    #[test]
    fn the_machine_says_how_much_it_has_or_there_is_no_limit() {
        assert_eq!(total("MemTotal:        2048 kB\nMemFree: 1 kB\n"), Some(2048 << 10));
        for odd in ["", "MemFree: 1 kB", "MemTotal: many kB", "MemTotal: 18446744073709551615 kB"] {
            assert_eq!(total(odd), None, "{odd}");
        }
        assert!(Memory::of_machine().bytes() > 0);
    }

    #[test]
    fn the_least_limit_of_all_groups_counts() {
        let files = [
            ("/sys/fs/cgroup/memory.max", "max\n"),
            ("/sys/fs/cgroup/a/memory.max", "3000\n"),
            ("/sys/fs/cgroup/a/b/memory.max", "4000\n"),
            ("/sys/fs/cgroup/memory/c/memory.limit_in_bytes", "5000\n"),
        ];
        let read = |path: &Path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path);
            found.map(|(_, text)| (*text).to_owned())
        };
        assert_eq!(group_limit("0::/a/b\n", read), Some(3000));
        assert_eq!(group_limit("9:cpu:/a\n4:memory:/c\n0::/\n", read), Some(5000));
        assert_eq!(group_limit("7:blkio,memory:/c/d\n0::/a\n", read), Some(3000));
        for none in ["", "0::/", "0::/elsewhere", "what", "4:memory", "3:cpu:/a"] {
            assert_eq!(group_limit(none, read), None, "{none}");
        }
    }
}
