//! What a peer without a model weighs: resident memory of `llamesh up --model -` when it is ready and a while later.

use std::time::Duration;

use serde_json::json;

use crate::process::{Failed, Peer};
use crate::stats::Series;

/// Peers started, one after the other.
const PEERS: usize = 3;
/// Long enough for the first ticks of everything that ticks.
const WHILE: Duration = Duration::from_secs(10);

/// Measures and reports.
pub(crate) async fn run(as_json: bool) -> Result<(), Failed> {
    let (mut ready, mut later, mut threads) = (Series::default(), Series::default(), Series::default());
    for _ in 0..PEERS {
        let peer = Peer::up()?;
        ready.add(peer.resident_mib()?);
        tokio::time::sleep(WHILE).await;
        later.add(peer.resident_mib()?);
        threads.add(peer.threads()?);
    }
    let [ready, later, threads] = [ready, later, threads].map(|series| series.quantile(0.5));
    if as_json {
        println!(
            "{}",
            json!({ "bench": "idle", "ready_mib": ready, "later_mib": later, "threads": threads })
        );
    } else {
        println!("resident when ready    {ready:>6.1} MiB");
        println!("resident {WHILE:?} later  {later:>6.1} MiB   {threads} threads");
    }
    Ok(())
}
