//! A spec in words and in bytes, for people who plan: `bitsweep plan` prints it.
use super::spec::*;

/// One line a part: what mixes tokens, what works on each, how positions are known.
pub fn describe(spec: &DecoderSpec) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    // Blocks alike are told once.
    let mut kinds: Vec<(&BlockSpec, usize)> = Vec::new();
    for block in &spec.blocks {
        match kinds.iter_mut().find(|(known, _)| *known == block) {
            Some((_, n)) => *n += 1,
            None => kinds.push((block, 1)),
        }
    }
    for (block, n) in kinds {
        let residual = match block.residual {
            Residual::Pre | Residual::PreWide => "a norm before each branch",
            Residual::FromNorm => "a norm before each branch, which the stream goes through too",
            Residual::Post => "a norm after each sum",
            Residual::Branch => "a norm after each branch",
            Residual::Sandwich => "norms before and after each branch",
            Residual::Parallel { shared: true } => "branches in parallel from one norm",
            Residual::Parallel { shared: false } => "branches in parallel from a norm each",
        };
        lines.push(format!("{n} x: {}; {}; {residual}", mixer(&block.mixer), ffn(block.ffn)));
    }
    let mut ends = vec![format!("vocabulary {}", spec.vocab)];
    if let Some(width) = spec.embed.project {
        ends.push(format!("embedded in {width}"));
    }
    if spec.embed.positions.is_some() {
        ends.push("learned positions".into());
    }
    ends.push(if spec.head.tied { "head tied to the embedding" } else { "head of its own" }.into());
    if let Some(cap) = spec.head.softcap {
        ends.push(format!("logits capped at {cap}"));
    }
    lines.push(ends.join(", "));
    lines
}

fn mixer(mixer: &Mixer) -> String {
    let a = match mixer {
        Mixer::Attention(a) => a,
        Mixer::Ssm(s) => {
            let kind = match s.kind {
                SsmKind::Mamba { rank } => format!("Mamba, time step through {rank}"),
                SsmKind::Mamba2 { heads, groups, .. } => format!("Mamba 2, {heads} heads, {groups} groups"),
            };
            return format!(
                "{kind}, {} channels with a state of {}, convolution over {}",
                s.inner, s.state, s.conv
            );
        }
    };
    let mut parts = vec![format!("{} heads of {}", a.heads, a.head_dim)];
    if a.kv_heads != a.heads {
        parts.push(format!("{} of keys", a.kv_heads));
    }
    match &a.position {
        Position::None => {}
        Position::Alibi { .. } => parts.push("ALiBi".into()),
        Position::Rope(r) => {
            let scaling = match &r.scaling {
                RopeScaling::None => String::new(),
                RopeScaling::Linear(factor) => format!(", linear {factor}"),
                RopeScaling::Llama3 { factor, .. } => format!(", llama3 {factor}"),
                RopeScaling::Yarn { factor, .. } => format!(", yarn {factor}"),
                RopeScaling::Long { original, .. } => format!(", longrope from {original}"),
            };
            let dims = if r.dims == a.head_dim { String::new() } else { format!(" on {}", r.dims) };
            parts.push(format!("rotary{dims} (base {}{scaling})", r.theta));
        }
    }
    if let Some(window) = a.window {
        parts.push(format!("window {window}"));
    }
    if a.qk_norm.is_some() {
        parts.push("normalized queries and keys".into());
    }
    if let Some(cap) = a.softcap {
        parts.push(format!("scores capped at {cap}"));
    }
    parts.join(", ")
}

fn ffn(ffn: Ffn) -> String {
    match ffn {
        Ffn::None => "no feed-forward".into(),
        Ffn::Plain { inner, act, .. } => format!("feed-forward {inner} ({act:?})").to_lowercase(),
        Ffn::Gated { inner, act, .. } => format!("gated feed-forward {inner} ({act:?})").to_lowercase(),
        Ffn::Experts { count, top, inner, shared, .. } => {
            let shared = shared.map_or(String::new(), |s| format!(" and a shared one of {s}"));
            format!("{top} of {count} experts of {inner}{shared}")
        }
    }
}

/// Bytes that one token leaves in a cache of keys and values of `bits` each, as long as no window drops it.
pub fn kv_bytes_a_token(spec: &DecoderSpec, bits: f64) -> f64 {
    let widths = spec.blocks.iter().filter_map(|b| b.mixer.attention()).map(|a| 2. * a.kv_width() as f64);
    widths.fold(0., |all, width| all + width) * bits / 8.
}
