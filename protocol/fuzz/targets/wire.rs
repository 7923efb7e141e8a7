//! Messages of peers: judged, and what is read is written again in no more bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::{Announcement, Entry, Frame, Message, Request, Response};

fn judge<M: Message>(bytes: &[u8]) {
    if let Ok(message) = M::from_bytes(bytes) {
        let again = message.to_bytes();
        assert!(again.len() <= bytes.len(), "one value has one shortest form");
        assert_eq!(M::from_bytes(&again).map(|message| message.to_bytes()), Ok(again));
    }
}

fuzz_target!(|bytes: &[u8]| {
    judge::<Frame>(bytes);
    judge::<Request>(bytes);
    judge::<Response>(bytes);
    judge::<Announcement>(bytes);
    let _ = Entry::from_bytes(bytes);
});
