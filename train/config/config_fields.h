// Every key of a run config, named once: this list drives reading, printing and comparing.
#pragma once

#include <limits>
#include <string>
#include <vector>

#include "train/config/run_config.h"

namespace emo {

struct Range {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
};
constexpr double kNoLimit = std::numeric_limits<double>::infinity();

// Names of an enum's values, in the order of the values.
using Names = std::vector<std::string>;

// Calls visitor.section(name) and visitor.field(key, pointer, ...) for everything in `config`.
// A visitor has: section(name) -> bool (go in?), field(key, int64_t* | uint64_t* | double*, Range),
// field(key, bool*), field(key, std::string*), texts(key, std::vector<std::string>*), names(key,
// Names, int*), pool(key, PoolPolicy*), pool_schedule(key, PoolSchedule*), layers(key,
// std::vector<int64_t>*, int64_t n_layers).
template <typename Visitor>
void visit_config(Visitor& v, RunConfig& c) {
  const auto names = [&v](const char* key, const Names& values, auto* field) {
    int index = static_cast<int>(*field);
    v.names(key, values, &index);
    *field = static_cast<std::remove_pointer_t<decltype(field)>>(index);
  };
  const Range any_count{0, 1e15};
  const Range positive{1, 1e12};
  if (v.section("run")) {
    v.field("folder", &c.run.folder);
    v.field("seed", &c.run.seed, any_count);
    v.field("start_from", &c.run.start_from);
    names("take", {"weights", "weights_and_optimizer", "all"}, &c.run.take);
    v.field("experts", &c.run.experts);
    v.field("change_contract", &c.run.change_contract);
    v.field("change_data", &c.run.change_data);
  }
  if (v.section("model")) {
    v.field("vocab_size", &c.model.vocab_size, Range{2, 1 << 24});
    v.field("d_model", &c.model.d_model, positive);
    v.field("n_layers", &c.model.n_layers, positive);
    v.field("n_heads", &c.model.n_heads, positive);
    v.field("d_expert", &c.model.d_expert, any_count);
    v.field("num_experts", &c.model.num_experts, any_count);
    v.counts("experts_per_layer", &c.model.experts_per_layer);
    v.field("num_shared_experts", &c.model.num_shared_experts, any_count);
    v.field("top_k", &c.model.top_k, any_count);
    v.field("d_ffn", &c.model.d_ffn, any_count);
    v.layers("dense_layers", &c.model.dense_layers, c.model.n_layers);
    v.field("qk_norm", &c.model.qk_norm);
    v.field("rope_theta", &c.model.rope_theta, Range{1, kNoLimit});
    v.field("norm_epsilon", &c.model.norm_epsilon, Range{1e-30, 1});
    v.field("init_std", &c.model.init_std, Range{1e-30, 1e3});
    if (v.absent("init_seed")) c.model.init_seed = c.run.seed;
    v.field("init_seed", &c.model.init_seed, any_count);
    v.field("document_attention", &c.document_attention);
  }
  if (v.section("routing")) {
    names("eos_routes_with", {"previous", "next"}, &c.eos_routes_with);
    names("mask", {"before_softmax", "after_softmax"}, &c.routing.mask);
    if (c.routing.mask == MaskTime::kAfterSoftmax && v.absent("balance_sees")) {
      c.routing.balance_sees = ScoresSeen::kFull;
    }
    if (c.routing.mask == MaskTime::kAfterSoftmax && v.absent("z_sees")) {
      c.routing.z_sees = ScoresSeen::kFull;
    }
    names("balance_sees", {"masked", "full"}, &c.routing.balance_sees);
    names("z_sees", {"masked", "full"}, &c.routing.z_sees);
    names("balance_scope", {"rank", "micro_batch", "global_batch", "document"},
          &c.routing.balance_scope);
    names("losses_over", {"all", "labelled"}, &c.routing.losses_over);
    v.pool("pool", &c.routing.pool);
    v.pool_schedule("pool_schedule", &c.routing.pool_schedule);
    names("pool_draw", {"per_layer", "per_document"}, &c.routing.pool_draw);
    v.field("jitter", &c.routing.jitter, Range{0, 0.9999999});
    v.field("bias_rate", &c.routing.bias_rate, Range{0, 1});
    v.field("balance_weight", &c.routing.balance_weight, Range{0, kNoLimit});
    v.field("z_weight", &c.routing.z_weight, Range{0, kNoLimit});
  }
  if (v.section("data")) {
    v.texts("path", &c.data.path);
    v.field("mix", &c.data.mix);
    v.synthetic("synthetic", &c.data.synthetic);
    v.field("root", &c.data.root);
    v.field("tokenizer_name", &c.data.tokenizer_name);
    v.field("tokenizer", &c.data.tokenizer);
    v.field("eos_id", &c.data.eos_id, Range{-1, 1 << 24});
    names("dtype", id_type_names(), &c.data.dtype);
    v.field("index", &c.data.index);
    v.field("seed", &c.data.seed, Range{-1, 1e15});
    names("order", order_names(), &c.data.order);
    names("documents", packing_names(), &c.data.documents);
    v.field("sequence_length", &c.data.sequence_length, Range{2, 1 << 24});
    v.field("repetition_filter", &c.data.repetition_filter);
  }
  if (v.section("train")) {
    v.field("steps", &c.train.steps, any_count);
    v.field("tokens", &c.train.tokens, any_count);
    v.field("batch", &c.train.batch, Range{1, 1e9});
    v.field("micro_batches", &c.train.micro_batches, positive);
    v.field("clip", &c.train.clip, Range{0, kNoLimit});
    v.field("lm_z_weight", &c.train.lm_z_weight, Range{0, kNoLimit});
    names("freeze", {"none", "routed", "routed_shared", "routed_shared_router"}, &c.train.freeze);
    v.field("log_every", &c.train.log_every, positive);
  }
  if (v.section("optimizer")) {
    v.field("beta1", &c.optimizer.beta1, Range{0, 0.9999999});
    v.field("beta2", &c.optimizer.beta2, Range{0, 0.9999999});
    v.field("epsilon", &c.optimizer.epsilon, Range{1e-30, 1});
    v.field("weight_decay", &c.optimizer.weight_decay, Range{0, 1e3});
  }
  if (v.section("schedule")) {
    names("kind", {"cosine", "linear", "constant"}, &c.schedule.kind);
    names("start", {"beginning", "checkpoint"}, &c.schedule.start);
    v.field("peak", &c.schedule.peak, Range{0, 1e3});
    v.field("warmup_steps", &c.schedule.warmup_steps, any_count);
    v.field("final_fraction", &c.schedule.final_fraction, Range{0, 1});
  }
  if (v.section("parallel")) {
    v.field("ep", &c.parallel.ep, Range{1, 1e6});
    names("recompute", {"none", "moe", "block"}, &c.parallel.recompute);
    v.field("slices", &c.parallel.slices, positive);
    v.field("zero", &c.parallel.zero, Range{1, 2});
    v.field("placement", &c.parallel.placement);
    names("precision", {"fp32", "bf16"}, &c.parallel.precision);
    names("device", {"cpu", "cuda", "emulated"}, &c.parallel.device);
  }
  if (v.section("eval")) {
    v.field("every", &c.eval.every, any_count);
    v.field("data", &c.eval.data);
    v.field("tasks", &c.eval.tasks);
    v.field("share", &c.eval.share, Range{1e-6, 1});
    v.field("tokens", &c.eval.tokens, Range{0, 1e15});
  }
  if (v.section("checkpoint")) {
    v.field("every", &c.checkpoint.every, any_count);
    v.field("keep", &c.checkpoint.keep, any_count);
    names("last", {"all", "model"}, &c.checkpoint.last);
  }
}

// The keys of data.synthetic.
template <typename Visitor>
void visit_synthetic(Visitor& v, SyntheticOptions& s) {
  v.field("vocab_size", &s.vocab_size, Range{3, 1 << 24});
  v.field("topics", &s.topics, Range{1, 1e6});
  v.field("min_length", &s.min_length, Range{1, 1e9});
  v.field("max_length", &s.max_length, Range{1, 1e9});
  v.field("seed", &s.seed, Range{0, 1e15});
}

}  // namespace emo
