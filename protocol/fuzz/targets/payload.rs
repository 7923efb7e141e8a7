//! What a hostile signer may have signed: profiles, bids, orders, receipts. The first byte chooses.
#![no_main]

use crypto::Payload;
use libfuzzer_sys::fuzz_target;
use protocol::message::Bid;
use protocol::{Acknowledgement, Order, Profile, Receipt, Segment};

fn judge<T: Payload>(bytes: &[u8]) {
    if let Ok(value) = T::decode(bytes) {
        assert!(value.encode().len() <= bytes.len(), "one value has one shortest form");
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, payload)) = bytes.split_first() else { return };
    match kind % 6 {
        0 => judge::<Profile>(payload),
        1 => judge::<Bid>(payload),
        2 => judge::<Order>(payload),
        3 => judge::<Receipt>(payload),
        4 => judge::<Segment>(payload),
        _ => judge::<Acknowledgement>(payload),
    }
});
