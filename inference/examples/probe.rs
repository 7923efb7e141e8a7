//! probe
#![expect(clippy::print_stdout, reason = "x")]
use inference::*;
use std::time::Instant;
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let logits: Vec<f32> =
        (0..49152u32).map(|v| ((v.wrapping_mul(2654435761) >> 8) as f32 / 16777216.0) * 20.0).collect();
    for (name, s) in [
        ("greedy", Sampling { temperature: 0.0, ..Sampling::default() }),
        ("T=1", Sampling { temperature: 1.0, top_p: 1.0, ..Sampling::default() }),
        ("top_p", Sampling::default()),
        ("top_k40", Sampling { top_k: 40, ..Sampling::default() }),
    ] {
        let t = Instant::now();
        for i in 0..20 {
            std::hint::black_box(Sampling { seed: i, ..s.clone() }.choose(&logits, &[], &[]));
        }
        println!("{name}: {:?}", t.elapsed() / 20);
    }
    let model = Model::load(std::env::args().nth(1).ok_or("file")?.as_ref())?;
    for _ in 0..3 {
        println!("{:?}", model.measure()?);
    }
    for chunk in [16, 32, 64, 128] {
        let mut s = model.sequence();
        let t = Instant::now();
        let ids: Vec<u32> = (0..256).map(|k| 1000 + k * 13).collect();
        for c in ids.chunks(chunk) {
            s.forward(c)?;
        }
        println!("chunk {chunk}: {:.1} t/s", 256.0 / t.elapsed().as_secs_f64());
    }
    Ok(())
}
