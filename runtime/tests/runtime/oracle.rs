//! The oracle: a forward pass in f64, one token after the other, written for clarity. The runtime's
//! logits are compared with it.

use crate::support::Built;
use pith_format::{ActivationFunction, Attention, Dense, Layer, ModelConfig, NormKind, Role, TensorId};
use std::cell::RefCell;

struct Oracle<'a> {
    config: &'a ModelConfig,
    built: &'a Built,
    layer: Option<usize>,
    /// Input of every matrix, product by product.
    inputs: RefCell<Vec<(TensorId, Vec<f64>)>>,
}

/// Logits of every token.
pub fn logits(config: &ModelConfig, built: &Built, tokens: &[u32]) -> Vec<Vec<f64>> {
    logits_and_inputs(config, built, tokens).0
}

/// A matrix and its inputs, token after token.
pub type MatrixInputs = (TensorId, Vec<f64>);

/// Logits of every token, and every matrix's inputs in token order.
pub fn logits_and_inputs(
    config: &ModelConfig,
    built: &Built,
    tokens: &[u32],
) -> (Vec<Vec<f64>>, Vec<MatrixInputs>) {
    let mut oracle = Oracle { config, built, layer: None, inputs: RefCell::default() };
    let mut stream: Vec<Vec<f64>> =
        tokens.iter().enumerate().map(|(position, &token)| oracle.embed(position, token)).collect();
    for (index, layer) in config.layers.iter().enumerate() {
        oracle.layer = Some(index);
        stream = oracle.layer(layer, &stream);
    }
    oracle.layer = None;
    let logits = stream.iter().map(|x| oracle.project(x)).collect();
    (logits, oracle.inputs.into_inner())
}

impl Oracle<'_> {
    fn get(&self, role: Role) -> Option<&[f64]> {
        self.built.weights.get(&TensorId { role, layer: self.layer, expert: None }).map(Vec::as_slice)
    }

    fn row(&self, role: Role, row: usize) -> Option<Vec<f64>> {
        let hidden_len = self.config.hidden_len;
        self.get(role).map(|values| values[row * hidden_len..][..hidden_len].to_vec())
    }

    fn embed(&self, position: usize, token: u32) -> Vec<f64> {
        let mut x = self.row(Role::TokenEmbedding, token as usize).unwrap();
        if let (true, Some(residual)) = (self.config.tied_head, self.row(Role::HeadResidual, token as usize))
        {
            x = sum(&x, &residual);
        }
        x.iter_mut().for_each(|x| *x *= f64::from(self.config.embedding_scale));
        if let Some(row) = self.row(Role::PositionEmbedding, position) {
            x = sum(&x, &row);
        }
        if self.get(Role::EmbeddingNorm).is_some() { self.norm(&x, Role::EmbeddingNorm, None) } else { x }
    }

    fn project(&self, x: &[f64]) -> Vec<f64> {
        let x = self.norm(x, Role::OutputNorm, Some(Role::OutputNormBias));
        let head = if self.config.tied_head { Role::TokenEmbedding } else { Role::Head };
        let mut logits = self.linear(&x, head, Role::HeadBias);
        if self.get(Role::HeadResidual).is_some() {
            logits = sum(&logits, &self.linear(&x, Role::HeadResidual, Role::Tokenizer));
        }
        if let Some(cap) = self.config.logit_softcap.map(f64::from) {
            logits.iter_mut().for_each(|logit| *logit = cap * (*logit / cap).tanh());
        }
        logits
    }

    fn layer(&self, layer: &Layer, stream: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let normed: Vec<_> = match layer.attention() {
            Some(_) => {
                stream.iter().map(|x| self.norm(x, Role::MixerNorm, Some(Role::MixerNormBias))).collect()
            }
            None => Vec::new(),
        };
        let mixed = layer.attention().map(|attention| self.attention(attention, &normed));
        let mut out = Vec::new();
        for (position, x) in stream.iter().enumerate() {
            let after = mixed.as_ref().map_or(x.clone(), |mixed| sum(x, &mixed[position]));
            let Some(dense) = layer.dense() else {
                out.push(after);
                continue;
            };
            let input = match (layer.parallel, self.get(Role::FfnNorm)) {
                (true, None) => normed[position].clone(),
                (true, Some(_)) => self.norm(x, Role::FfnNorm, Some(Role::FfnNormBias)),
                (false, _) => self.norm(&after, Role::FfnNorm, Some(Role::FfnNormBias)),
            };
            out.push(sum(&after, &self.post(self.ffn(dense, &input), Role::FfnPostNorm)));
        }
        out
    }

    fn attention(&self, layer: &Attention, normed: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let heads = |x: &[f64], weight, bias, norm, position: Option<usize>| -> Vec<Vec<f64>> {
            let all = self.linear(x, weight, bias);
            all.chunks(layer.head_dim).map(|head| self.head(layer, head, norm, position)).collect()
        };
        let rows = |weight, bias, norm: Option<Role>, turned: bool| -> Vec<Vec<Vec<f64>>> {
            let row = |(p, x): (usize, &Vec<f64>)| heads(x, weight, bias, norm, turned.then_some(p));
            normed.iter().enumerate().map(row).collect()
        };
        let keys = rows(Role::Key, Role::KeyBias, Some(Role::KeyNorm), true);
        let values = rows(Role::Value, Role::ValueBias, None, false);
        let queries = rows(Role::Query, Role::QueryBias, Some(Role::QueryNorm), true);
        let mix = |(position, queries): (usize, &Vec<Vec<f64>>)| {
            let mixed = attend(layer, position, queries, &keys, &values);
            self.post(
                self.linear(&mixed, Role::AttentionOutput, Role::AttentionOutputBias),
                Role::MixerPostNorm,
            )
        };
        queries.iter().enumerate().map(mix).collect()
    }

    fn head(&self, layer: &Attention, x: &[f64], norm: Option<Role>, position: Option<usize>) -> Vec<f64> {
        let mut x = x.to_vec();
        if let Some(weight) = norm.and_then(|norm| self.get(norm)) {
            let root = (mean(x.iter().map(|x| x * x)) + f64::from(self.config.norm_epsilon)).sqrt();
            x = x.iter().zip(weight).map(|(x, w)| x / root * w).collect();
        }
        let (Some(position), Some(table)) = (position, layer.rope) else { return x };
        let table = &self.config.rope[table];
        for (i, inv_freq) in table.inv_freq.iter().enumerate() {
            let angle = f64::from(position as f32 * inv_freq);
            let (a, b, magnitude) = (x[i], x[i + table.dim / 2], f64::from(table.magnitude));
            x[i] = magnitude * (a * angle.cos() - b * angle.sin());
            x[i + table.dim / 2] = magnitude * (b * angle.cos() + a * angle.sin());
        }
        x
    }

    fn ffn(&self, layer: &Dense, x: &[f64]) -> Vec<f64> {
        let f = |x: f64| match layer.activation {
            ActivationFunction::Silu => x / (1.0 + (-x).exp()),
            ActivationFunction::Gelu => 0.5 * x * (1.0 + erf(x / 2f64.sqrt())),
            ActivationFunction::GeluTanh => {
                0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh())
            }
        };
        let mut up = self.linear(x, Role::Up, Role::UpBias);
        if self.get(Role::Gate).is_some() {
            let gate = self.linear(x, Role::Gate, Role::GateBias);
            up = gate.iter().zip(&up).map(|(&gate, up)| f(gate) * up).collect();
        } else {
            up.iter_mut().for_each(|up| *up = f(*up));
        }
        self.linear(&up, Role::Down, Role::DownBias)
    }

    fn post(&self, x: Vec<f64>, norm: Role) -> Vec<f64> {
        if self.get(norm).is_some() { self.norm(&x, norm, None) } else { x }
    }

    /// A product, plus the bias if there is one.
    fn linear(&self, x: &[f64], weight: Role, bias: Role) -> Vec<f64> {
        let id = TensorId { role: weight, layer: self.layer, expert: None };
        self.inputs.borrow_mut().push((id, x.to_vec()));
        let rows = self.get(weight).unwrap().chunks(x.len());
        let product: Vec<f64> = rows.map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum()).collect();
        self.get(bias).map_or(product.clone(), |bias| sum(&product, bias))
    }

    fn norm(&self, x: &[f64], weight: Role, bias: Option<Role>) -> Vec<f64> {
        let epsilon = f64::from(self.config.norm_epsilon);
        let centre = if self.config.norm == NormKind::Layer { mean(x.iter().copied()) } else { 0.0 };
        let root = (mean(x.iter().map(|x| (x - centre).powi(2))) + epsilon).sqrt();
        let weight = self.get(weight).unwrap();
        let scaled: Vec<f64> = x.iter().zip(weight).map(|(x, w)| (x - centre) / root * w).collect();
        bias.and_then(|bias| self.get(bias)).map_or(scaled.clone(), |bias| sum(&scaled, bias))
    }
}

fn attend(
    layer: &Attention,
    position: usize,
    queries: &[Vec<f64>],
    keys: &[Vec<Vec<f64>>],
    values: &[Vec<Vec<f64>>],
) -> Vec<f64> {
    let mut mixed = Vec::new();
    for (head, query) in queries.iter().enumerate() {
        let shared = layer.query_heads.iter().enumerate().flat_map(|(kv_head, &count)| vec![kv_head; count]);
        let kv_head = { shared }.nth(head).unwrap();
        let seen: Vec<usize> =
            (0..=position).filter(|p| layer.window.is_none_or(|window| position - p < window)).collect();
        let mut scores: Vec<f64> = seen
            .iter()
            .map(|&p| {
                let dot: f64 = query.iter().zip(&keys[p][kv_head]).map(|(q, k)| q * k).sum();
                let score = dot * f64::from(layer.scale);
                layer.softcap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
            })
            .collect();
        let largest = scores.iter().copied().fold(f64::MIN, f64::max);
        scores.iter_mut().for_each(|score| *score = (*score - largest).exp());
        let total: f64 = scores.iter().sum();
        mixed.extend((0..layer.head_dim).map(|dim| -> f64 {
            seen.iter().zip(&scores).map(|(&p, score)| score / total * values[p][kv_head][dim]).sum()
        }));
    }
    mixed
}

/// `2/√π · ∫₀ˣ exp(−t²) dt` by Simpson's rule.
fn erf(x: f64) -> f64 {
    let (steps, end) = (400, x.clamp(-7.0, 7.0));
    let at = |step: u32| (-(end * f64::from(step) / f64::from(steps)).powi(2)).exp();
    let inner: f64 = (1..steps).map(|step| at(step) * if step % 2 == 1 { 4.0 } else { 2.0 }).sum();
    2.0 / std::f64::consts::PI.sqrt() * (at(0) + inner + at(steps)) * end / f64::from(steps) / 3.0
}

fn sum(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let len = values.len() as f64;
    values.sum::<f64>() / len
}
