//! Plan files: read, checked and priced, whatever they say.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::Price;
use protocol::plan::Plan;

fuzz_target!(|text: &str| {
    let plan = match text.starts_with('{') {
        true => serde_json::from_str::<Plan>(text).ok(),
        false => toml::from_str::<Plan>(text).ok(),
    };
    if let Some(Ok(checked)) = plan.map(Plan::check) {
        checked.estimate(|_| Some(Price::default()));
    }
});
