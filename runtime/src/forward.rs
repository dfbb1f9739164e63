//! The forward pass: one for all families, for one token or many. The configuration and the set of
//! tensors define a model's behaviour.

use crate::attention::attend;
use crate::buffers::{Buffers, areas};
use crate::cache::LayerCache;
use crate::error::RuntimeError;
use crate::exec::Exec;
use crate::head::Head;
use crate::listener::{Inputs, Listener, Site};
use crate::model::Model;
use crate::rope::Rotation;
use crate::sequence::{Place, Sequence};
use crate::weights::{Attention, FeedForward, Layer, Linear, Norm, Vector};
use pith_format::{ActivationFunction, Dense, Matrix, ModelConfig, NormKind};
use pith_kernels::{Activations, Form, Kernels, Operand};
use std::ops::Range;

/// One call of the forward pass: tokens of one sequence, or of several. Matrices see only tokens,
/// not sequences.
pub(crate) struct Call<'a, 's> {
    model: &'a Model,
    exec: &'a mut Exec,
    /// The sequences of the tokens, in order.
    sequences: &'a mut [Sequence<'s>],
    /// Total number of tokens.
    tokens: usize,
    /// Receives the inputs of the matrices.
    listener: Option<&'a mut dyn Listener>,
}

impl<'a, 's> Call<'a, 's> {
    /// A call for the tokens of these sequences, at most the buffers' batch.
    pub fn new(model: &'a Model, exec: &'a mut Exec, sequences: &'a mut [Sequence<'s>]) -> Self {
        let tokens = sequences.iter().map(|sequence| sequence.tokens).sum();
        Self { model, exec, sequences, tokens, listener: None }
    }

    /// Reports every matrix's input to `listener`. Activations are then [whole](Form::Whole), which
    /// changes no result.
    pub fn heard_by(self, listener: &'a mut dyn Listener) -> Self {
        Self { listener: Some(listener), ..self }
    }

    /// Runs `tokens` through all layers; their residual streams stay in the buffers.
    ///
    /// At the beginning of a sequence the file may still be on a slow disk, so each layer is
    /// prefetched while the previous one is computed. Fails if the file is now too short.
    pub fn run(&mut self, tokens: &[u32], buffers: &mut Buffers) -> Result<(), RuntimeError> {
        assert_eq!(tokens.len(), self.tokens);
        self.model.check_length()?;
        self.embed(tokens, buffers);
        self.place();
        let begins = self.sequences.iter().any(|sequence| sequence.first == 0);
        for layer_index in 0..self.model.layers.len() {
            match &mut self.exec.stream {
                Some(stream) => stream.enter_layer(layer_index),
                None if begins => self.model.will_need(layer_index + 1),
                None => {}
            }
            self.layer(layer_index, buffers);
        }
        Ok(())
    }

    /// Runs the residual streams in the buffers through one layer.
    pub fn run_layer(&mut self, layer_index: usize, buffers: &mut Buffers) {
        self.place();
        self.layer(layer_index, buffers);
    }

    /// Computes the rotary angles of the call's positions.
    fn place(&mut self) {
        for sequence in &mut *self.sequences {
            for rotation in &mut sequence.place.rotations {
                rotation.set(sequence.first, sequence.tokens);
            }
        }
    }

    /// Logits of the call's tokens with these indices, `tokens × vocab_len`, after [`Call::run`].
    /// `staged`: one token, in two stages if the session asked for them.
    pub fn project(
        &mut self,
        buffers: &mut Buffers,
        tokens: Range<usize>,
        head: &mut Head,
        staged: bool,
        logits: &mut [f32],
    ) {
        let len = self.model.config().hidden_len;
        let x = &buffers.x[tokens.start * len..tokens.end * len];
        let x = self.normalized(&self.model.output_norm, x, Form::Whole, &mut buffers.operand);
        self.tell(None, Site::Head, x);
        head.logits(self.model, self.exec, x, staged, logits);
    }

    /// Reports the head's input for the call's tokens, after [`Call::run`].
    pub fn enter_head(&mut self, buffers: &mut Buffers) {
        let x = &buffers.x[..self.tokens * self.model.config().hidden_len];
        let x = self.normalized(&self.model.output_norm, x, Form::Whole, &mut buffers.operand);
        self.tell(None, Site::Head, x);
    }

    /// Writes the embeddings of `tokens` to the buffers.
    pub fn embed(&mut self, tokens: &[u32], buffers: &mut Buffers) {
        let (model, config) = (self.model, self.model.config());
        let row = &mut buffers.row[..config.hidden_len];
        let norm = model.embedding_norm.as_ref().map(|norm| self.exec.norm(norm));
        let x = &mut buffers.x[..tokens.len() * config.hidden_len];
        self.exec.look_up_all(model.embedding.of(model.bytes()), tokens, x);
        let positions = self.sequences.iter().flat_map(Sequence::positions);
        for ((position, &token), x) in positions.zip(tokens).zip(x.chunks_exact_mut(config.hidden_len)) {
            if let Some(residual) = model.head_residual.as_ref().filter(|_| config.tied_head) {
                self.exec.look_up(residual.of(model.bytes()), token as usize, row);
                add(x, row);
            }
            if config.embedding_scale != 1.0 {
                x.iter_mut().for_each(|x| *x *= config.embedding_scale);
            }
            if let Some(positions) = &model.positions {
                self.exec.look_up(positions.of(model.bytes()), position, row);
                add(x, row);
            }
            if let Some(norm) = norm {
                row.copy_from_slice(x);
                normalize(self.exec.kernels(), config, norm, row, x);
            }
        }
    }

    fn layer(&mut self, layer_index: usize, buffers: &mut Buffers) {
        let Layer { attention, feed_forward } = &self.model.layers[layer_index];
        match (attention, feed_forward) {
            (Some(attention), Some(block)) if self.config(layer_index).parallel => {
                self.parallel(layer_index, (attention, block), buffers);
            }
            (attention, block) => {
                if let Some(attention) = attention {
                    self.attention(layer_index, attention, buffers);
                }
                if let Some(block) = block {
                    self.feed_forward(layer_index, block, buffers);
                }
            }
        }
    }

    fn config(&self, layer_index: usize) -> &'a pith_format::Layer {
        &self.model.config().layers[layer_index]
    }

    /// `x += attention(norm(x))`
    fn attention(&mut self, layer_index: usize, weights: &Attention, buffers: &mut Buffers) {
        let Buffers { x, shared, operand, row, .. } = buffers;
        let x = &mut x[..self.tokens * self.model.config().hidden_len];
        let form = self.form(&[&weights.query, &weights.key, &weights.value]);
        let input = self.normalized(&weights.norm, x, form, operand);
        self.tell(Some(layer_index), Site::Attention, input);
        self.project_heads(layer_index, weights, input, shared);
        self.leave_attention(layer_index, weights, shared, (x, operand, row));
    }

    /// `x += feed_forward(norm(x))`
    fn feed_forward(&mut self, layer_index: usize, block: &FeedForward, buffers: &mut Buffers) {
        let Buffers { x, shared, operand, inner, row, .. } = buffers;
        let x = &mut x[..self.tokens * self.model.config().hidden_len];
        let dims = self.dense(layer_index);
        let norm = block.norm.as_ref().expect("only parallel layers can do without");
        let form = self.form(&[block.gate.as_ref().unwrap_or(&block.up), &block.up]);
        let input = self.normalized(norm, x, form, operand);
        self.tell(Some(layer_index), Site::Ffn, input);
        let packed = input.form() == Form::Packed && self.form(&[&block.down]) == Form::Packed;
        let packed = match packed {
            true => Some(self.enter_ffn_packed(block, dims.activation, input, inner)),
            false => {
                self.enter_ffn(block, dims, input, shared);
                None
            }
        };
        self.leave_ffn(layer_index, block, packed, shared, (x, operand, row));
    }

    /// `x += attention(n₁(x)) + feed_forward(n₂(x))`
    fn parallel(
        &mut self,
        layer_index: usize,
        (weights, block): (&Attention, &FeedForward),
        buffers: &mut Buffers,
    ) {
        let Buffers { x, shared, operand, row, .. } = buffers;
        let (config, dims) = (self.model.config(), self.dense(layer_index));
        let x = &mut x[..self.tokens * config.hidden_len];
        // The intermediate values of both blocks are needed at once.
        let [area, _] = areas(self.config(layer_index), config.hidden_len);
        let (area, beside) = shared.split_at_mut(self.tokens * area);
        let mut input = self.normalized(&weights.norm, x, Form::Whole, operand);
        self.tell(Some(layer_index), Site::Attention, input);
        self.project_heads(layer_index, weights, input, area);
        if let Some(norm) = &block.norm {
            input = self.normalized(norm, x, Form::Whole, operand);
        }
        self.tell(Some(layer_index), Site::Ffn, input);
        self.enter_ffn(block, dims, input, beside);
        self.leave_attention(layer_index, weights, area, (&mut *x, operand, row));
        self.leave_ffn(layer_index, block, None, beside, (x, operand, row));
    }

    /// Queries, keys and values of `input`, written to the first parts of `area`.
    fn project_heads(
        &mut self,
        layer_index: usize,
        weights: &Attention,
        input: Operand<'_>,
        area: &mut [f32],
    ) {
        let [queries, keys, values, _] = split(area, self.head_lengths(layer_index));
        self.linear(input, [(&weights.query, queries), (&weights.key, keys), (&weights.value, values)]);
    }

    /// Lengths of queries, keys, values and the attention mix, for the call's tokens.
    fn head_lengths(&self, layer_index: usize) -> [usize; 4] {
        let dims = self.attention_config(layer_index);
        let [heads, kv] = [dims.query_len(), dims.kv_len()].map(|len| self.tokens * len);
        [heads, kv, kv, heads]
    }

    fn attention_config(&self, layer_index: usize) -> &'a pith_format::Attention {
        self.config(layer_index).attention().expect("a layer with attention weights has its configuration")
    }

    fn dense(&self, layer_index: usize) -> &'a Dense {
        self.config(layer_index).dense().expect("a layer with feed-forward weights has their configuration")
    }

    /// Attention and its output projection: from queries, keys and values in `area` to the sum into
    /// the residual stream `x`.
    fn leave_attention(
        &mut self,
        layer_index: usize,
        weights: &Attention,
        area: &mut [f32],
        (x, operand, row): (&mut [f32], &mut Activations, &mut [f32]),
    ) {
        let dims = self.attention_config(layer_index);
        let [queries, keys, values, mixed] = split(area, self.head_lengths(layer_index));
        if let Some([query_norm, key_norm]) = &weights.head_norms {
            self.normalize_heads(query_norm, dims.head_dim, row, queries);
            self.normalize_heads(key_norm, dims.head_dim, row, keys);
        }
        self.attend(layer_index, [&mut *queries, keys, values, &mut *mixed]);
        let input = self.operand(mixed, self.form(&[&weights.output]), operand);
        self.tell(Some(layer_index), Site::Output, input);
        let delta = &mut area[..x.len()];
        self.add_product(&weights.output, weights.post_norm.as_ref(), input, delta, row, x);
    }

    /// Output projection of the feed-forward block: from the result of [`Call::enter_ffn`] in
    /// `area` or `packed` to the sum into the residual stream `x`.
    fn leave_ffn(
        &mut self,
        layer_index: usize,
        block: &FeedForward,
        packed: Option<Operand<'_>>,
        area: &mut [f32],
        (x, operand, row): (&mut [f32], &mut Activations, &mut [f32]),
    ) {
        let input = match packed {
            Some(packed) => packed,
            None => {
                let [gate, up] = split(area, [self.tokens * self.dense(layer_index).len; 2]);
                self.operand(if block.gate.is_some() { gate } else { up }, Form::Whole, operand)
            }
        };
        self.tell(Some(layer_index), Site::Down, input);
        let delta = &mut area[..x.len()];
        self.add_product(&block.down, block.post_norm.as_ref(), input, delta, row, x);
    }

    fn tell(&mut self, layer: Option<usize>, site: Site, input: Operand<'_>) {
        if let Some(listener) = &mut self.listener {
            listener.input(layer, site, Inputs::new(input));
        }
    }

    /// The form of the activations that these matrices need.
    fn form(&self, readers: &[&Linear]) -> Form {
        if self.listener.is_some() {
            return Form::Whole;
        }
        let (kernels, bytes) = (self.exec.kernels(), self.model.bytes());
        match readers.iter().all(|reader| kernels.reads_packed(reader.weight.of(bytes).encoding())) {
            true => Form::Packed,
            false => Form::Whole,
        }
    }

    /// `gate = f(gate projection) · up projection`, or `up = f(up projection)` where there is no
    /// gate: the first two parts of `area`.
    fn enter_ffn(&mut self, block: &FeedForward, dims: &Dense, input: Operand<'_>, area: &mut [f32]) {
        let function = dims.activation;
        let [gate, up] = split(area, [self.tokens * dims.len; 2]);
        match &block.gate {
            Some(weight) => {
                self.linear_then(input, [(weight, gate), (&block.up, up)], |kernels, [gate, up]| {
                    kernels.activate_gated(function, gate, up);
                })
            }
            None => {
                self.linear_then(input, [(&block.up, up)], |kernels, [up]| kernels.activate(function, up))
            }
        }
    }

    /// [`Call::enter_ffn`] for many tokens, with the result packed as the next matrix's operand.
    fn enter_ffn_packed<'b>(
        &mut self,
        block: &FeedForward,
        function: ActivationFunction,
        input: Operand<'_>,
        out: &'b mut Activations,
    ) -> Operand<'b> {
        let (up, up_bias) = self.weight_and_bias(&block.up);
        let Some(gate) = &block.gate else {
            return self.exec.multiply_packed(input, [up], out, |kernels, first, [up]| {
                add_part(up_bias, first, up);
                kernels.activate(function, up);
            });
        };
        let (gate, gate_bias) = self.weight_and_bias(gate);
        self.exec.multiply_packed(input, [gate, up], out, |kernels, first, [gate, up]| {
            add_part(gate_bias, first, gate);
            add_part(up_bias, first, up);
            kernels.activate_gated(function, gate, up);
        })
    }

    fn weight_and_bias<'b>(&mut self, linear: &'b Linear) -> (Matrix<'b>, Option<&'b [f32]>)
    where
        'a: 'b,
    {
        let bias = linear.bias.as_ref().map(|bias| self.exec.vector(bias));
        (linear.weight.of(self.model.bytes()), bias)
    }

    /// Adds the product of `input` with `linear` to the residual stream, normalised first where the
    /// layer has a norm there.
    fn add_product(
        &mut self,
        linear: &Linear,
        norm: Option<&Norm>,
        input: Operand<'_>,
        delta: &mut [f32],
        row: &mut [f32],
        x: &mut [f32],
    ) {
        if input.form() == Form::Packed && norm.is_none() {
            let (weight, bias) = self.weight_and_bias(linear);
            return self.exec.multiply_add(input, weight, x, |first, part| add_part(bias, first, part));
        }
        self.linear(input, [(linear, &mut *delta)]);
        self.add_to_stream(norm, delta, row, x);
    }

    /// Norm of every query or key head separately, always by root mean square.
    fn normalize_heads(&mut self, norm: &Vector, head_dim: usize, row: &mut [f32], x: &mut [f32]) {
        let weight = self.exec.vector(norm);
        let (row, epsilon) = (&mut row[..head_dim], self.model.config().norm_epsilon);
        for head in x.chunks_exact_mut(head_dim) {
            row.copy_from_slice(head);
            self.exec.kernels().rms_norm(row, weight, epsilon, head);
        }
    }

    /// Applies rotary positions to queries and keys, appends keys and values to the caches, and
    /// computes attention, for each sequence separately. `heads`: queries, keys, values, and the
    /// output mix.
    fn attend(&mut self, layer_index: usize, mut heads: [&mut [f32]; 4]) {
        let (dims, kernels) = (self.attention_config(layer_index), self.exec.kernels());
        let (all, mut start) = (self.tokens, 0);
        for sequence in &mut *self.sequences {
            let (first, tokens, before) = (sequence.first, sequence.tokens, self.exec.traffic);
            let (cache, Place { attention, rotations }) = sequence.of_layer(layer_index);
            let [queries, keys, values, mixed] = heads.each_mut().map(|x| {
                let len = x.len() / all;
                &mut x[start * len..(start + tokens) * len]
            });
            if let Some(table) = dims.rope {
                rotate(kernels, &rotations[table], dims.head_dim, tokens, queries);
                rotate(kernels, &rotations[table], dims.head_dim, tokens, keys);
            }
            for x in [&mut *queries, &mut *keys, &mut *values] {
                cache.spread(x);
            }
            store(cache, first, tokens, keys, values);
            self.exec.traffic.kv_write_bytes += tokens as u64 * cache.position_bytes();
            attend(self.exec, dims, cache, first, queries, attention, mixed);
            cache.spread(mixed);
            sequence.traffic += self.exec.traffic - before;
            start += tokens;
        }
    }

    /// Adds a block's output to the residual stream, normalised first where the layer has a norm
    /// there.
    fn add_to_stream(&mut self, norm: Option<&Norm>, delta: &[f32], row: &mut [f32], x: &mut [f32]) {
        let Some(norm) = norm else { return add(x, delta) };
        let (config, norm) = (self.model.config(), self.exec.norm(norm));
        let row = &mut row[..config.hidden_len];
        for (delta, x) in delta.chunks_exact(row.len()).zip(x.chunks_exact_mut(row.len())) {
            normalize(self.exec.kernels(), config, norm, delta, row);
            add(x, row);
        }
    }

    /// The norm of every token of `x`, as an operand of matrices.
    fn normalized<'b>(
        &mut self,
        norm: &Norm,
        x: &[f32],
        form: Form,
        operand: &'b mut Activations,
    ) -> Operand<'b> {
        let (config, norm) = (self.model.config(), self.exec.norm(norm));
        let len = config.hidden_len;
        self.exec.set(operand, (x.len() / len, len), form, |kernels, token, out| {
            normalize(kernels, config, norm, &x[token * len..][..len], out);
        })
    }

    /// `x` as an operand of matrices.
    fn operand<'b>(&mut self, x: &[f32], form: Form, operand: &'b mut Activations) -> Operand<'b> {
        let len = x.len() / self.tokens;
        self.exec.set(operand, (self.tokens, len), form, |_, token, out| {
            out.copy_from_slice(&x[token * len..][..len]);
        })
    }

    /// Products plus biases of all matrices that read `x`.
    fn linear<const N: usize>(&mut self, x: Operand<'_>, parts: [(&Linear, &mut [f32]); N]) {
        self.linear_then(x, parts, |_, _| {});
    }

    /// [`Call::linear`], then `finish` on each token's results, part by part.
    fn linear_then<const N: usize>(
        &mut self,
        x: Operand<'_>,
        parts: [(&Linear, &mut [f32]); N],
        finish: impl Fn(&dyn Kernels, [&mut [f32]; N]) + Sync,
    ) {
        let weights = parts.each_ref().map(|(linear, _)| linear.weight.of(self.model.bytes()));
        let biases =
            parts.each_ref().map(|(linear, _)| linear.bias.as_ref().map(|bias| self.exec.vector(bias)));
        let outputs = parts.map(|(_, output)| output);
        self.exec.multiply(x, weights, outputs, |kernels, first, mut parts| {
            for ((bias, first), part) in biases.iter().zip(first).zip(&mut parts) {
                add_part(*bias, first, part);
            }
            finish(kernels, parts);
        });
    }
}

fn rotate(kernels: &dyn Kernels, rotation: &Rotation, head_dim: usize, tokens: usize, x: &mut [f32]) {
    let len = x.len() / tokens;
    for (token, x) in x.chunks_exact_mut(len).enumerate() {
        let (cos, sin) = rotation.token(token);
        kernels.rope(x, head_dim, cos, sin);
    }
}

fn store(cache: &mut LayerCache, first: usize, tokens: usize, keys: &[f32], values: &[f32]) {
    let len = keys.len() / tokens;
    let rows = keys.chunks_exact(len).zip(values.chunks_exact(len));
    for (position, (keys, values)) in (first..).zip(rows) {
        cache.store(position, keys, values);
    }
}

/// Adds the elements of `bias` from `first` on.
fn add_part(bias: Option<&[f32]>, first: usize, x: &mut [f32]) {
    if let Some(bias) = bias {
        add(x, &bias[first..]);
    }
}

/// Splits off parts of these lengths from the start of `data`.
fn split<const N: usize>(data: &mut [f32], lengths: [usize; N]) -> [&mut [f32]; N] {
    let mut rest = data;
    lengths.map(|length| {
        let (part, tail) = std::mem::take(&mut rest).split_at_mut(length);
        rest = tail;
        part
    })
}

fn normalize(
    kernels: &dyn Kernels,
    config: &ModelConfig,
    (weight, bias): (&[f32], Option<&[f32]>),
    x: &[f32],
    out: &mut [f32],
) {
    match config.norm {
        NormKind::Rms => kernels.rms_norm(x, weight, config.norm_epsilon, out),
        NormKind::Layer => kernels.layer_norm(x, weight, bias, config.norm_epsilon, out),
    }
}

fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}
