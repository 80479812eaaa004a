#include "eval/verify/golden_check.h"

#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <numeric>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "data/rows/loader.h"
#include "eval/verify/golden_folder.h"
#include "model/inference.h"
#include "model/routing_gap.h"
#include "parallel/agreement.h"
#include "train/metrics/router_metrics.h"
#include "train/step/batch_tensors.h"
#include "train/step/training_step.h"

namespace emo {
namespace {

// Expected agreement in fp32 (tests/golden/README.md).
constexpr double kScalarTolerance = 1e-5;
constexpr double kLogitTolerance = 1e-5;
constexpr double kGradientTolerance = 1e-4;
constexpr double kGradientFloor = 1e-8;
constexpr double kWeightTolerance = 2e-4;

constexpr double kNoAnswer = std::numeric_limits<double>::infinity();

Comparison scalar(const std::string& what, double found, const Json& object,
                  const std::string& key) {
  if (!object.contains(key) || !object[key].is_number())
    return {what + " (not in the file)", kNoAnswer, kScalarTolerance, "relative"};
  const double expected = object[key].get<double>();
  const double size = std::abs(expected);
  const double deviation = std::abs(found - expected) / (size > 1e-8 ? size : 1);
  return {what, std::isfinite(found) ? deviation : kNoAnswer, kScalarTolerance, "relative"};
}

// The largest over ranks of each comparison's deviation. NaN counts as infinite.
void all_reduce_deviations(Communicator& world, std::vector<Comparison>* comparisons) {
  std::vector<double> deviations;
  for (const Comparison& c : *comparisons) {
    deviations.push_back(std::isfinite(c.deviation) ? c.deviation : kNoAnswer);
  }
  world.all_reduce(
      at::from_blob(deviations.data(), {static_cast<int64_t>(deviations.size())}, at::kDouble),
      ReduceOp::kMax);
  for (size_t i = 0; i < deviations.size(); ++i) (*comparisons)[i].deviation = deviations[i];
}

double largest_difference(int64_t count, const float* found, const float* expected) {
  double largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    const double difference = std::abs(static_cast<double>(found[i]) - expected[i]);
    if (!(difference <= largest)) largest = difference;  // NaN sticks
    if (std::isnan(largest)) return kNoAnswer;
  }
  return largest;
}

// A tensor of the whole model, compared where this rank holds it; every rank makes the same list.
std::vector<Comparison> compare_parameters(const Model& model, const FlatBuffers& buffers,
                                           const TensorFolder& expected, const std::string& prefix,
                                           double tolerance, bool relative) {
  std::vector<Comparison> comparisons;
  const std::vector<ParameterInfo> all = make_layout(model.config, {}).parameters;
  for (const ParameterInfo& parameter : all) {
    Comparison c{prefix + parameter.name, 0, tolerance,
                 relative ? "of the largest entry" : "absolute"};
    const TensorRecord* record = expected.find(parameter.name);
    const auto here =
        std::find_if(model.layout.parameters.begin(), model.layout.parameters.end(),
                     [&](const ParameterInfo& p) { return p.name == parameter.name; });
    if (record == nullptr || record->dtype != "F32" || record->shape != parameter.shape) {
      c.what += " (missing in the folder, or of another shape)";
      c.deviation = kNoAnswer;
    } else if (here != model.layout.parameters.end()) {
      const auto* values = reinterpret_cast<const float*>(record->bytes.data());
      const int64_t count = parameter.numel();
      c.deviation = largest_difference(count, parameter_data(*here, buffers), values);
      if (relative) {
        double size = 0;
        for (int64_t i = 0; i < count; ++i)
          size = std::max(size, std::abs(static_cast<double>(values[i])));
        c.deviation =
            c.deviation <= kGradientFloor ? 0 : c.deviation / std::max(size, kGradientFloor);
      }
    }
    comparisons.push_back(c);
  }
  return comparisons;
}

StepOptions step_options(double learning_rate) {
  StepOptions options;
  options.learning_rate = learning_rate;
  return options;
}

// A metric of the reference: of a layer ("block NN/<name>"), or of all of them, where the reference
// takes the largest "load imbalance" and the sum of all else.
double reference_metric(const Metrics& metrics, const std::string& block, const std::string& name) {
  double result = 0;
  bool found = false;
  for (const auto& [key, value] : metrics) {
    const bool of_layer = absl::StartsWith(key, "block ") && absl::EndsWith(key, "/" + name);
    if (block.empty() ? !of_layer : key != block + name) continue;
    result = name == "load imbalance" ? std::max(result, value) : result + value;
    found = true;
  }
  return found ? result : kNoAnswer;
}

// The file's names for our metrics: on all ranks "reducedp" counts are the whole batch's, and the
// shared experts of the recipes have no losses of their own.
void compare_metrics(const Metrics& metrics, const Json& expected, std::vector<Comparison>* out) {
  for (const auto& [key, value] : expected.items()) {
    const size_t slash = key.find('/');
    const std::string block = slash == std::string::npos ? "" : key.substr(0, slash + 1);
    std::string name = slash == std::string::npos ? key : key.substr(slash + 1);
    if (absl::StartsWith(name, "shared ") || absl::StrContains(name, "unique shared")) {
      out->push_back(scalar("metric " + key, 0, expected, key));
      continue;
    }
    name = std::string(absl::StripPrefix(name, "reducedp "));
    out->push_back(scalar("metric " + key, reference_metric(metrics, block, name), expected, key));
  }
}

// The reference's standard MoE, unlike its EMO router, takes "load imbalance", "unique experts" and
// the entropy over labelled tokens only (tests/golden/std_a shows it; the losses see all tokens).
// Replaces those sums, from what the forward pass of `mine` kept. Collective.
void count_labelled_tokens_only(const TrainingState& state, const Batch& mine, const Mesh& mesh,
                                LossSums* sums) {
  LossSums labelled =
      make_loss_sums(state.model.config.moe_layers(), state.model.config.routed_experts());
  size_t next = 0;
  for (const BlockActivations& block : state.memory.slices[0].blocks) {
    const int64_t E = block.moe.logits.size(1);
    const int64_t K = block.moe.routing.experts.size(1);
    const auto* z = block.moe.logits.const_data_ptr<float>();
    const auto* experts = block.moe.routing.experts.const_data_ptr<int32_t>();
    RouterSums& layer = labelled.layers[next++];
    for (int64_t t = 0; t < static_cast<int64_t>(mine.labels.size()); ++t) {
      if (mine.labels[t] == kIgnoredLabel) continue;
      const double logsumexp = block.moe.routing.masked_logsumexp[t];
      for (int64_t e = 0; e < E; ++e) {
        const double log_score = z[t * E + e] - logsumexp;
        layer.token_entropy -= std::exp(log_score) * log_score;
      }
      for (int64_t k = 0; k < K; ++k) layer.counts[experts[t * K + k]] += 1;
      layer.tokens += 1;
    }
  }
  all_reduce_sums(*mesh.world, &labelled);
  for (size_t i = 0; i < sums->layers.size(); ++i) {
    sums->layers[i].counts = labelled.layers[i].counts;
    sums->layers[i].token_entropy = labelled.layers[i].token_entropy;
    sums->layers[i].tokens = labelled.layers[i].tokens;
  }
}

double compare_logits(TrainingState* state, const GoldenFolder& golden, const Batch& mine,
                      const Mesh& mesh) {
  const int64_t V = golden.config.vocab_size;
  const int64_t S = golden.sequence_length;
  const TensorRecord* record = golden.forward.find("logits");
  if (record == nullptr || record->dtype != "F32" ||
      record->shape != std::vector<int64_t>{golden.batch.rows, S, V}) {
    return kNoAnswer;
  }
  const int64_t T = mine.rows * S;
  std::vector<int64_t> all(T);
  std::iota(all.begin(), all.end(), 0);
  const at::Tensor logits = make_inference(&state->model, mesh)->logits(to_tensors(mine), {}, all);
  const int64_t first_row =
      share_of({0, golden.batch.rows}, mesh.world->rank(), mesh.world->size()).begin;
  return largest_difference(
      T * V, logits.const_data_ptr<float>(),
      reinterpret_cast<const float*>(record->bytes.data()) + first_row * S * V);
}

void append(std::vector<Comparison> more, std::vector<Comparison>* report) {
  report->insert(report->end(), std::make_move_iterator(more.begin()),
                 std::make_move_iterator(more.end()));
}

// Collective. The smallest gap on any rank of the pass that `state` has just run, of one slice.
PassGap gap_of(const std::string& pass, const TrainingState& state, const Mesh& mesh) {
  double largest = -routing_gap(state.memory.slices[0].blocks).choice();
  mesh.world->all_reduce(at::from_blob(&largest, {1}, at::kDouble), ReduceOp::kMax);
  return {pass, -largest};
}

// Collective. Losses, metrics, logits and gradients of the golden batch.
void check_first_pass(const GoldenFolder& golden, const Mesh& mesh, TrainingState* state,
                      GoldenReport* report) {
  const Batch mine = rows_of(golden.batch, mesh.world->rank(), mesh.world->size());
  StepResult result =
      compute_gradients(mesh, {{to_tensors(mine)}}, divisor_share(mine), step_options(0), state);
  report->gaps.push_back(gap_of("first batch", *state, mesh));
  const FlatBuffers gradients = gather_gradients(mesh, state);
  if (golden.contract.pool.kind == PoolPolicy::Kind::kNone) {
    count_labelled_tokens_only(*state, mine, mesh, &result.sums);
  }
  const Json& expected = golden.expected;
  const double z_loss = result.z_loss(step_options(0).lm_z_weight);
  append({scalar("loss_total", result.cross_entropy() + z_loss, expected, "loss_total"),
          scalar("ce_loss", result.cross_entropy(), expected, "ce_loss"),
          scalar("lm_z_loss", z_loss, expected, "lm_z_loss"),
          scalar("tokens_in_loss", result.divisor, expected, "tokens_in_loss")},
         &report->comparisons);
  compare_metrics(router_metrics(golden.config, golden.contract, result.sums, result.divisor),
                  expected.value("aux", Json::object()), &report->comparisons);
  report->comparisons.push_back(
      {"logits", compare_logits(state, golden, mine, mesh), kLogitTolerance, "absolute"});
  append(compare_parameters(state->model, gradients, golden.gradients, "gradient ",
                            kGradientTolerance, /*relative=*/true),
         &report->comparisons);
}

// Collective. The golden steps, and the weights after them.
void check_trajectory(const GoldenFolder& golden, const Mesh& mesh, TrainingState* state,
                      GoldenReport* report) {
  for (const GoldenStep& step : golden.trajectory) {
    const Batch rows = rows_of(step.batch, mesh.world->rank(), mesh.world->size());
    const StepResult result = training_step(mesh, {{to_tensors(rows)}}, divisor_share(rows),
                                            step_options(step.learning_rate), state);
    const std::string at = absl::StrCat("step ", step.expected["step"].get<int64_t>());
    report->gaps.push_back(gap_of(at, *state, mesh));
    const std::string name = at + " ";
    const double loss = result.cross_entropy() + result.z_loss(step_options(0).lm_z_weight);
    append({scalar(name + "loss_total", loss, step.expected, "loss_total"),
            scalar(name + "ce_loss", result.cross_entropy(), step.expected, "ce_loss"),
            scalar(name + "grad_norm", result.gradient_norm, step.expected, "grad_norm")},
           &report->comparisons);
  }
  wait_for_parameters(state);
  append(compare_parameters(state->model, state->model.parameters, golden.weights_after,
                            "weight after ", kWeightTolerance, /*relative=*/false),
         &report->comparisons);
}

}  // namespace

bool PassGap::is_tie() const { return gap < kTieGap; }

absl::StatusOr<GoldenReport> check_golden(const std::string& folder, const Mesh& mesh) {
  absl::StatusOr<GoldenFolder> golden = read_golden(folder);
  absl::Status status = agree(*mesh.world, golden.status());
  if (!status.ok()) return status;
  if (golden->config.routed_experts() < mesh.ep->size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        golden->config.routed_experts(), " routed experts on ", mesh.ep->size(), " ranks"));
  }
  TrainingState state(golden->config, golden->contract, golden->sequence_length, mesh.position());
  const auto load = [&] {
    return read_parameters(golden->weights, "", golden->config, state.model.layout, /*exact=*/true,
                           &state.model.parameters);
  };
  status = agree(*mesh.world, load());  // a rank sees its own experts' tensors only
  if (!status.ok()) return status;
  GoldenReport report;
  check_first_pass(*golden, mesh, &state, &report);
  check_trajectory(*golden, mesh, &state, &report);
  all_reduce_deviations(*mesh.world, &report.comparisons);
  return report;
}

}  // namespace emo
