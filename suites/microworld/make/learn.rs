//! LLaMA's forward and backward pass written out: training on CPUs, several times faster than a graph of tensor operations.
//!
//! All parameters are one vector, in the order of [`Shape::layout`], and so are their gradients. [`Shape::loss`] takes some
//! sequences on one thread; [`Adam::step`] moves the parameters. A test below holds loss and gradients to those of bitsweep's
//! decoder.
use crate::product::{View, small};
use bitsweep::float::exp;

/// Sizes of a LLaMA whose head is its embedding.
#[derive(Clone, Copy)]
pub struct Shape {
    pub vocab: usize,
    pub width: usize,
    pub inner: usize,
    pub blocks: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub eps: f32,
    pub theta: f64,
}

/// A parameter's name in a checkpoint, its sizes, and where it begins.
pub struct Slot {
    pub name: String,
    pub sizes: Vec<usize>,
    pub start: usize,
}

impl Slot {
    pub fn range(&self) -> std::ops::Range<usize> {
        self.start..self.start + self.sizes.iter().product::<usize>()
    }
}

/// Places in a block, as [`Shape::layout`] has them.
const NORM: usize = 0;
const Q: usize = 1;
const K: usize = 2;
const V: usize = 3;
const O: usize = 4;
const NORM2: usize = 5;
const GATE: usize = 6;
const UP: usize = 7;
const DOWN: usize = 8;
const PLACES: usize = 9;

/// What a block's backward pass needs of its forward pass.
struct Kept {
    x: Vec<f32>,
    normed: Vec<f32>,
    inverse: Vec<f32>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    weights: Vec<f32>,
    mixed: Vec<f32>,
    x2: Vec<f32>,
    normed2: Vec<f32>,
    inverse2: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    gated: Vec<f32>,
}

impl Shape {
    fn head(&self) -> usize {
        self.width / self.heads
    }

    /// Every parameter: the embedding, the blocks' nine, the last norm.
    pub fn layout(&self) -> Vec<Slot> {
        let (w, inner, kv) = (self.width, self.inner, self.kv_heads * self.head());
        let mut list = vec![("model.embed_tokens".to_string(), vec![self.vocab, w])];
        for b in 0..self.blocks {
            for (name, sizes) in [
                ("input_layernorm", vec![w]),
                ("self_attn.q_proj", vec![w, w]),
                ("self_attn.k_proj", vec![kv, w]),
                ("self_attn.v_proj", vec![kv, w]),
                ("self_attn.o_proj", vec![w, w]),
                ("post_attention_layernorm", vec![w]),
                ("mlp.gate_proj", vec![inner, w]),
                ("mlp.up_proj", vec![inner, w]),
                ("mlp.down_proj", vec![w, inner]),
            ] {
                list.push((format!("model.layers.{b}.{name}"), sizes));
            }
        }
        list.push(("model.norm".to_string(), vec![w]));
        let mut start = 0;
        let slots = list.into_iter().map(|(name, sizes)| {
            let slot = Slot { name: name + ".weight", sizes, start };
            start = slot.range().end;
            slot
        });
        slots.collect()
    }

    /// Sum of the losses of each sequence's tokens but the first. `grad` is set to its gradient times `scale`.
    pub fn loss(&self, params: &[f32], sequences: &[Vec<u32>], grad: &mut [f32], scale: f32) -> f64 {
        let layout = self.layout();
        let p = |i: usize| &params[layout[i].range()];
        let at = |b: usize, place: usize| 1 + b * PLACES + place;
        let last = layout.len() - 1;
        let (w, kv) = (self.width, self.kv_heads * self.head());
        let ids: Vec<u32> = sequences.iter().flat_map(|s| s[..s.len() - 1].iter().copied()).collect();
        let targets: Vec<u32> = sequences.iter().flat_map(|s| s[1..].iter().copied()).collect();
        let mut spans = Vec::new();
        let mut start = 0;
        for s in sequences {
            spans.push((start, s.len() - 1));
            start += s.len() - 1;
        }
        let longest = spans.iter().map(|s| s.1).max().unwrap_or(0);
        let angles = self.angles(longest);
        let t = ids.len();

        let mut x: Vec<f32> =
            ids.iter().flat_map(|&id| p(0)[id as usize * w..][..w].iter().copied()).collect();
        let mut kept = Vec::with_capacity(self.blocks);
        for b in 0..self.blocks {
            let (normed, inverse) = norm(&x, p(at(b, NORM)), self.eps);
            let mut q = linear(&normed, p(at(b, Q)), w);
            let mut k = linear(&normed, p(at(b, K)), w);
            let v = linear(&normed, p(at(b, V)), w);
            self.rotate(&mut q, &spans, &angles, 1.);
            self.rotate(&mut k, &spans, &angles, 1.);
            let (mixed, weights) = self.attend(&q, &k, &v, &spans);
            let x2 = plus(linear(&mixed, p(at(b, O)), w), &x);
            let (normed2, inverse2) = norm(&x2, p(at(b, NORM2)), self.eps);
            let gate = linear(&normed2, p(at(b, GATE)), w);
            let up = linear(&normed2, p(at(b, UP)), w);
            let gated = swiglu(&gate, &up);
            let next = plus(linear(&gated, p(at(b, DOWN)), self.inner), &x2);
            kept.push(Kept {
                x: std::mem::replace(&mut x, next),
                normed,
                inverse,
                q,
                k,
                v,
                weights,
                mixed,
                x2,
                normed2,
                inverse2,
                gate,
                up,
                gated,
            });
        }
        let (normed, inverse) = norm(&x, p(last), self.eps);
        let mut logits = linear(&normed, p(0), w);
        let loss = cross_entropy(&mut logits, &targets, scale);

        grad.fill(0.);
        let dnormed = linear_back(&logits, &normed, p(0), w, &mut grad[layout[0].range()]);
        let mut dx = vec![0f32; t * w];
        norm_back(&dnormed, &x, &inverse, p(last), &mut dx, &mut grad[layout[last].range()]);
        for (b, kept) in kept.iter().enumerate().rev() {
            let g = |place: usize| layout[at(b, place)].range();
            let dgated = linear_back(&dx, &kept.gated, p(at(b, DOWN)), self.inner, &mut grad[g(DOWN)]);
            let (dgate, dup) = swiglu_back(&dgated, &kept.gate, &kept.up);
            let d = linear_back(&dgate, &kept.normed2, p(at(b, GATE)), w, &mut grad[g(GATE)]);
            let d = plus(linear_back(&dup, &kept.normed2, p(at(b, UP)), w, &mut grad[g(UP)]), &d);
            norm_back(&d, &kept.x2, &kept.inverse2, p(at(b, NORM2)), &mut dx, &mut grad[g(NORM2)]);
            let dmixed = linear_back(&dx, &kept.mixed, p(at(b, O)), w, &mut grad[g(O)]);
            let [mut dq, mut dk, dv] = self.attend_back(&dmixed, kept, &spans);
            debug_assert_eq!(dk.len(), t * kv);
            self.rotate(&mut dq, &spans, &angles, -1.);
            self.rotate(&mut dk, &spans, &angles, -1.);
            let d = linear_back(&dq, &kept.normed, p(at(b, Q)), w, &mut grad[g(Q)]);
            let d = plus(linear_back(&dk, &kept.normed, p(at(b, K)), w, &mut grad[g(K)]), &d);
            let d = plus(linear_back(&dv, &kept.normed, p(at(b, V)), w, &mut grad[g(V)]), &d);
            norm_back(&d, &kept.x, &kept.inverse, p(at(b, NORM)), &mut dx, &mut grad[g(NORM)]);
        }
        let embedding = &mut grad[layout[0].range()];
        for (&id, dx) in ids.iter().zip(dx.chunks_exact(w)) {
            embedding[id as usize * w..][..w].iter_mut().zip(dx).for_each(|(g, d)| *g += d);
        }
        loss
    }

    /// Cosine and sine for every position and pair.
    fn angles(&self, positions: usize) -> Vec<(f32, f32)> {
        let half = self.head() / 2;
        let angle = |pos: usize, i: usize| pos as f64 / self.theta.powf(i as f64 / half as f64);
        let all = (0..positions).flat_map(|pos| (0..half).map(move |i| angle(pos, i)));
        all.map(|a| (a.cos() as f32, a.sin() as f32)).collect()
    }

    /// Turns the pairs of every head by their position; `way` -1 turns back.
    fn rotate(&self, x: &mut [f32], spans: &[(usize, usize)], angles: &[(f32, f32)], way: f32) {
        let half = self.head() / 2;
        let width = x.len() / spans.iter().map(|s| s.1).sum::<usize>();
        for &(start, n) in spans {
            for (row, angles) in
                x[start * width..][..n * width].chunks_exact_mut(width).zip(angles.chunks(half))
            {
                for head in row.chunks_exact_mut(2 * half) {
                    let (a, b) = head.split_at_mut(half);
                    for ((a, b), &(cos, sin)) in a.iter_mut().zip(b).zip(angles) {
                        let sin = sin * way;
                        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
                    }
                }
            }
        }
    }

    /// Mixed values, and every head's weights, a square a head.
    fn attend(&self, q: &[f32], k: &[f32], v: &[f32], spans: &[(usize, usize)]) -> (Vec<f32>, Vec<f32>) {
        let (d, w, kv) = (self.head(), self.width, self.kv_heads * self.head());
        let mut mixed = vec![0f32; q.len()];
        let mut weights = vec![0f32; spans.iter().map(|(_, n)| n * n * self.heads).sum()];
        let mut rest = weights.as_mut_slice();
        for &(start, n) in spans {
            for head in 0..self.heads {
                let (square, later) = rest.split_at_mut(n * n);
                rest = later;
                let from = start * w + head * d;
                let kv_from = start * kv + head / (self.heads / self.kv_heads) * d;
                let keys = View { data: &k[kv_from..], row: 1, col: kv };
                small(square, n, (n, n, d), (d as f32).powf(-0.5), rows(&q[from..], w), keys);
                fast(|| {
                    for (i, row) in square.chunks_exact_mut(n).enumerate() {
                        softmax(&mut row[..i + 1]);
                        row[i + 1..].fill(0.);
                    }
                });
                small(&mut mixed[from..], w, (n, d, n), 1., rows(square, n), rows(&v[kv_from..], kv));
            }
        }
        (mixed, weights)
    }

    /// Gradients of queries, keys and values.
    fn attend_back(&self, dmixed: &[f32], kept: &Kept, spans: &[(usize, usize)]) -> [Vec<f32>; 3] {
        let (d, w, kv) = (self.head(), self.width, self.kv_heads * self.head());
        let mut dq = vec![0f32; kept.q.len()];
        let mut dk = vec![0f32; kept.k.len()];
        let mut dv = vec![0f32; kept.v.len()];
        let longest = spans.iter().map(|s| s.1).max().unwrap_or(0);
        let (mut dsquare, mut part) = (vec![0f32; longest * longest], vec![0f32; longest * d]);
        let mut rest = kept.weights.as_slice();
        for &(start, n) in spans {
            for head in 0..self.heads {
                let (square, later) = rest.split_at(n * n);
                rest = later;
                let from = start * w + head * d;
                let kv_from = start * kv + head / (self.heads / self.kv_heads) * d;
                let (ds, part) = (&mut dsquare[..n * n], &mut part[..n * d]);
                let add = |part: &[f32], to: &mut [f32]| {
                    for (to, part) in to[kv_from..].chunks_mut(kv).zip(part.chunks_exact(d)) {
                        to.iter_mut().zip(part).for_each(|(to, p)| *to += p);
                    }
                };
                let dout = rows(&dmixed[from..], w);
                small(part, d, (n, d, n), 1., columns(square, n), dout);
                add(part, &mut dv);
                small(ds, n, (n, n, d), 1., dout, View { data: &kept.v[kv_from..], row: 1, col: kv });
                let scale = (d as f32).powf(-0.5);
                fast(|| {
                    for (i, (ds, p)) in ds.chunks_exact_mut(n).zip(square.chunks_exact(n)).enumerate() {
                        let mean = dot(&ds[..i + 1], &p[..i + 1]);
                        ds.iter_mut().zip(p).for_each(|(ds, p)| *ds = p * (*ds - mean) * scale);
                    }
                });
                small(&mut dq[from..], w, (n, d, n), 1., rows(ds, n), rows(&kept.k[kv_from..], kv));
                small(part, d, (n, d, n), 1., columns(ds, n), rows(&kept.q[from..], w));
                add(part, &mut dk);
            }
        }
        [dq, dk, dv]
    }
}

/// Compiled for each instruction set, chosen at run time.
#[inline(always)]
fn fast<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}

fn rows(data: &[f32], stride: usize) -> View<'_> {
    View { data, row: stride, col: 1 }
}

fn columns(data: &[f32], stride: usize) -> View<'_> {
    View { data, row: 1, col: stride }
}

/// `x [tokens, width]` times the transpose of `weight [out, width]`.
fn linear(x: &[f32], weight: &[f32], width: usize) -> Vec<f32> {
    let (tokens, out) = (x.len() / width, weight.len() / width);
    let mut y = vec![0f32; tokens * out];
    small(&mut y, out, (tokens, out, width), 1., rows(x, width), columns(weight, width));
    y
}

/// Gradient of `x`; `dweight` is set.
fn linear_back(dy: &[f32], x: &[f32], weight: &[f32], width: usize, dweight: &mut [f32]) -> Vec<f32> {
    let (tokens, out) = (x.len() / width, weight.len() / width);
    small(dweight, width, (out, width, tokens), 1., columns(dy, out), rows(x, width));
    let mut dx = vec![0f32; x.len()];
    small(&mut dx, width, (tokens, width, out), 1., rows(dy, out), rows(weight, width));
    dx
}

fn plus(mut x: Vec<f32>, y: &[f32]) -> Vec<f32> {
    fast(|| x.iter_mut().zip(y).for_each(|(x, y)| *x += y));
    x
}

/// Sum of products in sixteen lanes.
#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; 16];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    for (a, b) in a.iter().zip(b) {
        (0..16).for_each(|i| lanes[i] += a[i] * b[i]);
    }
    lanes.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}

/// RMSNorm, and every row's reciprocal root mean square.
fn norm(x: &[f32], gain: &[f32], eps: f32) -> (Vec<f32>, Vec<f32>) {
    let w = gain.len();
    let mut y = vec![0f32; x.len()];
    let mut inverse = vec![0f32; x.len() / w];
    fast(|| {
        for ((x, y), inverse) in x.chunks_exact(w).zip(y.chunks_exact_mut(w)).zip(&mut inverse) {
            *inverse = 1. / (dot(x, x) / w as f32 + eps).sqrt();
            y.iter_mut().zip(x).zip(gain).for_each(|((y, x), g)| *y = x * *inverse * g);
        }
    });
    (y, inverse)
}

/// Adds to `dx` and `dgain`.
fn norm_back(dy: &[f32], x: &[f32], inverse: &[f32], gain: &[f32], dx: &mut [f32], dgain: &mut [f32]) {
    let w = gain.len();
    let mut scaled = vec![0f32; w];
    fast(|| {
        for (((dy, x), dx), &inv) in
            dy.chunks_exact(w).zip(x.chunks_exact(w)).zip(dx.chunks_exact_mut(w)).zip(inverse)
        {
            for (((s, dy), g), (dg, x)) in scaled.iter_mut().zip(dy).zip(gain).zip(dgain.iter_mut().zip(x)) {
                *s = dy * g;
                *dg += dy * x * inv;
            }
            let pull = dot(&scaled, x) * inv * inv * inv / w as f32;
            dx.iter_mut().zip(&scaled).zip(x).for_each(|((dx, s), x)| *dx += s * inv - x * pull);
        }
    });
}

fn swiglu(gate: &[f32], up: &[f32]) -> Vec<f32> {
    let mut out = vec![0f32; gate.len()];
    fast(|| {
        for ((o, g), u) in out.iter_mut().zip(gate).zip(up) {
            *o = g / (1. + exp(-g)) * u;
        }
    });
    out
}

fn swiglu_back(dout: &[f32], gate: &[f32], up: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let (mut dgate, mut dup) = (vec![0f32; gate.len()], vec![0f32; gate.len()]);
    fast(|| {
        for (((dg, du), d), (g, u)) in dgate.iter_mut().zip(&mut dup).zip(dout).zip(gate.iter().zip(up)) {
            let sigmoid = 1. / (1. + exp(-g));
            *du = d * g * sigmoid;
            *dg = d * u * sigmoid * (1. + g * (1. - sigmoid));
        }
    });
    (dgate, dup)
}

#[inline(always)]
fn softmax(row: &mut [f32]) {
    let mut tops = [f32::NEG_INFINITY; 16];
    let (chunks, rest) = row.as_chunks::<16>();
    for chunk in chunks {
        (0..16).for_each(|i| tops[i] = tops[i].max(chunk[i]));
    }
    let top = tops.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
    row.iter_mut().for_each(|x| *x = exp(*x - top));
    let mut lanes = [0f32; 16];
    let (chunks, rest) = row.as_chunks::<16>();
    for chunk in chunks {
        (0..16).for_each(|i| lanes[i] += chunk[i]);
    }
    let inverse = 1. / (lanes.iter().sum::<f32>() + rest.iter().sum::<f32>());
    row.iter_mut().for_each(|x| *x *= inverse);
}

/// Sum of losses; `logits` become their gradient times `scale`.
fn cross_entropy(logits: &mut [f32], targets: &[u32], scale: f32) -> f64 {
    let width = logits.len() / targets.len();
    let mut loss = 0f64;
    fast(|| {
        for (row, &target) in logits.chunks_exact_mut(width).zip(targets) {
            softmax(row);
            loss -= f64::from(row[target as usize].max(f32::MIN_POSITIVE).ln());
            row[target as usize] -= 1.;
            row.iter_mut().for_each(|x| *x *= scale);
        }
    });
    loss
}

/// AdamW (Loshchilov and Hutter, 2019), after gradients were scaled to a norm of at most one.
pub struct Adam {
    moments: Vec<[f32; 2]>,
    steps: i32,
}

const BETAS: [f32; 2] = [0.9, 0.98];
const DECAY: f32 = 0.02;

impl Adam {
    pub fn new(n: usize) -> Self {
        Adam { moments: vec![[0.; 2]; n], steps: 0 }
    }

    pub fn step(&mut self, params: &mut [f32], grad: &[f32], rate: f32) {
        self.steps += 1;
        let length = grad.iter().map(|g| f64::from(g * g)).sum::<f64>().sqrt() as f32;
        let clip = 1. / length.max(1.);
        let [c1, c2] = BETAS.map(|b| 1. / (1. - b.powi(self.steps)));
        fast(|| {
            for ((p, g), [m, v]) in params.iter_mut().zip(grad).zip(&mut self.moments) {
                let g = g * clip;
                *m = BETAS[0] * *m + (1. - BETAS[0]) * g;
                *v = BETAS[1] * *v + (1. - BETAS[1]) * g * g;
                *p = *p * (1. - rate * DECAY) - rate * (*m * c1) / ((*v * c2).sqrt() + 1e-8);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitsweep::model::{
        decoder::{Batch, Decoder},
        families::{Family, llama::Llama},
        ops::Kernels,
    };
    use candle_core::{Device, Tensor, Var};
    use serde_json::json;

    /// Two sequences of different lengths through a small model, by hand and through candle's gradients.
    #[test]
    fn loss_and_gradients_are_the_decoders() {
        let shape = Shape {
            vocab: 50,
            width: 32,
            inner: 40,
            blocks: 2,
            heads: 4,
            kv_heads: 2,
            eps: 1e-5,
            theta: 1e4,
        };
        let layout = shape.layout();
        let n = layout[layout.len() - 1].range().end;
        let mut state = 1u64;
        let mut params: Vec<f32> = (0..n)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                ((state >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * 0.6
            })
            .collect();
        for slot in layout.iter().filter(|s| s.sizes.len() == 1) {
            params[slot.range()].iter_mut().for_each(|x| *x += 1.);
        }
        let sequences: Vec<Vec<u32>> =
            vec![(0..24).map(|i| i * 7 % 50).collect(), (0..10).map(|i| i * i * 3 % 50).collect()];
        let mut grad = vec![0f32; n];
        let loss = shape.loss(&params, &sequences, &mut grad, 0.5);

        let config = json!({
            "model_type": "llama", "vocab_size": 50, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": true
        });
        let spec = Llama.spec(&config).unwrap();
        let mut vars = Vec::new();
        let mut decoder = Decoder::build(spec.clone(), &Device::Cpu, false, |param, sizes| {
            let name = format!("model.{}", Llama.source(&spec, param).unwrap().name);
            let slot = layout.iter().find(|s| s.name == name).unwrap();
            assert_eq!(slot.sizes, sizes, "{name}");
            let var = Var::from_vec(params[slot.range()].to_vec(), sizes, &Device::Cpu)?;
            vars.push((slot, var.clone()));
            Ok(var.as_tensor().clone())
        })
        .unwrap();
        assert_eq!(vars.len(), layout.len());
        decoder.mode.kernels = Kernels::Reference;
        let batch = Batch::new(sequences.iter().map(|s| &s[..s.len() - 1]));
        let targets: Vec<u32> = sequences.iter().flat_map(|s| s[1..].to_vec()).collect();
        let count = targets.len();
        let logits = decoder.logits(&decoder.hidden(&batch, None, None).unwrap()).unwrap();
        let mean =
            candle_nn::loss::cross_entropy(&logits, &Tensor::new(targets, &Device::Cpu).unwrap()).unwrap();
        let theirs = f64::from(mean.to_scalar::<f32>().unwrap()) * count as f64;
        assert!((loss - theirs).abs() < 1e-4 * theirs, "{loss} {theirs}");
        let grads = mean.backward().unwrap();
        for (slot, var) in vars {
            let theirs: Vec<f32> = grads.get(&var).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            let most = theirs.iter().fold(0f32, |m, x| m.max(x.abs()));
            assert!(most > 0., "{}", slot.name);
            for (ours, theirs) in grad[slot.range()].iter().zip(theirs) {
                let ours = ours / 0.5 / count as f32;
                assert!((ours - theirs).abs() < 1e-4 * most + 1e-7, "{}: {ours} {theirs}", slot.name);
            }
        }
    }
}
