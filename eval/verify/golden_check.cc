#include "eval/verify/golden_check.h"

#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <memory>
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
#include "train/step/device.h"
#include "train/step/stepper.h"

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
// Adds to `layer` what a block of a pass without pools chose for those.
void add_labelled_tokens(const Slice& slice, const BlockView& block, RouterSums* layer) {
  const int64_t E = block.router_logits.size(1);
  const int64_t K = block.experts.size(1);
  const auto* experts = block.experts.const_data_ptr<int32_t>();
  const auto* labels = slice.labels.const_data_ptr<int32_t>();
  for (int64_t t = 0; t < slice.num_tokens(); ++t) {
    if (labels[t] == kIgnoredLabel) continue;
    const float* z = block.router_logits.const_data_ptr<float>() + t * E;
    double sum = 0;
    for (int64_t e = 0; e < E; ++e) sum += std::exp(static_cast<double>(z[e]));
    for (int64_t e = 0; e < E; ++e) {
      const double log_score = z[e] - std::log(sum);
      layer->token_entropy -= std::exp(log_score) * log_score;
    }
    for (int64_t k = 0; k < K; ++k) layer->counts[experts[t * K + k]] += 1;
    layer->tokens += 1;
  }
}

// Collective. What add_labelled_tokens() counted, summed over ranks.
void sum_over_ranks(Communicator& world, LossSums* labelled) {
  std::vector<double*> numbers;
  for (RouterSums& layer : labelled->layers) {
    numbers.insert(numbers.end(), {&layer.token_entropy, &layer.tokens});
    for (double& count : layer.counts) numbers.push_back(&count);
  }
  std::vector<double> flat;
  for (const double* number : numbers) flat.push_back(*number);
  world.all_reduce(at::from_blob(flat.data(), {static_cast<int64_t>(flat.size())}, at::kDouble),
                   ReduceOp::kSum);
  for (size_t i = 0; i < flat.size(); ++i) *numbers[i] = flat[i];
}

void take_labelled(const LossSums& labelled, LossSums* sums) {
  for (size_t i = 0; i < sums->layers.size(); ++i) {
    sums->layers[i].counts = labelled.layers[i].counts;
    sums->layers[i].token_entropy = labelled.layers[i].token_entropy;
    sums->layers[i].tokens = labelled.layers[i].tokens;
  }
}

// A look into one pass over this rank's rows.
struct Look {
  at::Tensor logits;  // [T, V], where wanted
  LossSums labelled;  // see add_labelled_tokens(); of all ranks
  double gap = 0;     // the smallest of all ranks
};
// Collective.
Look look_into_pass(Inference* inference, const Slice& slice, bool want_logits) {
  const ModelConfig& config = inference->config();
  Look look;
  look.labelled.layers.resize(config.moe_layers());
  for (RouterSums& layer : look.labelled.layers) layer.counts.resize(config.routed_experts());
  RoutingGap gap;
  size_t moe_layer = 0;
  InferenceOptions options;
  options.after_block = [&](const BlockView& block) {
    if (!block.pools.defined()) return;
    gap.take(routing_gap(*inference, options, slice, block));
    add_labelled_tokens(slice, block, &look.labelled.layers[moe_layer++]);
  };
  if (want_logits) {
    std::vector<int64_t> all(slice.num_tokens());
    std::iota(all.begin(), all.end(), 0);
    look.logits = inference->logits(slice, options, all);
  } else {
    inference->run(slice, options);
  }
  sum_over_ranks(*inference->mesh().world, &look.labelled);
  double largest = -gap.choice();
  inference->mesh().world->all_reduce(at::from_blob(&largest, {1}, at::kDouble), ReduceOp::kMax);
  look.gap = -largest;
  return look;
}

double compare_logits(const at::Tensor& logits, const GoldenFolder& golden, const Mesh& mesh) {
  const int64_t V = golden.config.vocab_size;
  const int64_t S = golden.sequence_length;
  const TensorRecord* record = golden.forward.find("logits");
  if (record == nullptr || record->dtype != "F32" ||
      record->shape != std::vector<int64_t>{golden.batch.rows, S, V}) {
    return kNoAnswer;
  }
  const int64_t first_row =
      share_of({0, golden.batch.rows}, mesh.world->rank(), mesh.world->size()).begin;
  return largest_difference(
      logits.numel(), logits.const_data_ptr<float>(),
      reinterpret_cast<const float*>(record->bytes.data()) + first_row * S * V);
}

void append(std::vector<Comparison> more, std::vector<Comparison>* report) {
  report->insert(report->end(), std::make_move_iterator(more.begin()),
                 std::make_move_iterator(more.end()));
}

// Collective; every rank gets the same answer. The golden model, ready for its first step.
absl::StatusOr<std::unique_ptr<Stepper>> open_stepper(const GoldenFolder& golden, const Mesh& mesh,
                                                      DeviceKind device) {
  RunConfig config;
  config.model = golden.config;
  config.routing = golden.contract;
  config.data.sequence_length = golden.sequence_length;
  config.parallel.device = device;
  auto stepper = std::make_unique<Stepper>(config, mesh, ExpertOrder());
  Model* model = stepper->model();
  // A rank sees its own experts' tensors only.
  absl::Status status =
      agree(*mesh.world, read_parameters(golden.weights, "", golden.config, model->layout,
                                         /*exact=*/true, &model->parameters));
  if (!status.ok()) return status;
  stepper->copy_from_host();
  return stepper;
}

StepBatches batches_of(const Batch& rows) {
  StepBatches step;
  step.micro_batches = {{to_tensors(rows)}};
  step.divisor_share = divisor_share(rows);
  return step;
}

// Collective. Losses, metrics, logits and gradients of the golden batch.
void check_first_pass(const GoldenFolder& golden, const Mesh& mesh, Stepper* stepper,
                      GoldenReport* report) {
  const Batch mine = rows_of(golden.batch, mesh.world->rank(), mesh.world->size());
  const Look look =
      look_into_pass(stepper->inference().get(), to_tensors(mine), /*want_logits=*/true);
  report->gaps.push_back({"first batch", look.gap});
  StepResult result = stepper->step(batches_of(mine), step_options(0));
  const FlatBuffers gradients = stepper->gradients();
  if (golden.contract.pool.kind == PoolPolicy::Kind::kNone)
    take_labelled(look.labelled, &result.sums);
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
      {"logits", compare_logits(look.logits, golden, mesh), kLogitTolerance, "absolute"});
  append(compare_parameters(*stepper->model(), gradients, golden.gradients, "gradient ",
                            kGradientTolerance, /*relative=*/true),
         &report->comparisons);
}

// Collective. The golden steps, and the weights after them.
void check_trajectory(const GoldenFolder& golden, const Mesh& mesh, Stepper* stepper,
                      GoldenReport* report) {
  for (const GoldenStep& step : golden.trajectory) {
    const Batch rows = rows_of(step.batch, mesh.world->rank(), mesh.world->size());
    const std::string at = absl::StrCat("step ", step.expected["step"].get<int64_t>());
    const Look look =
        look_into_pass(stepper->inference().get(), to_tensors(rows), /*want_logits=*/false);
    report->gaps.push_back({at, look.gap});
    const StepResult result = stepper->step(batches_of(rows), step_options(step.learning_rate));
    const std::string name = at + " ";
    const double loss = result.cross_entropy() + result.z_loss(step_options(0).lm_z_weight);
    append({scalar(name + "loss_total", loss, step.expected, "loss_total"),
            scalar(name + "ce_loss", result.cross_entropy(), step.expected, "ce_loss"),
            scalar(name + "grad_norm", result.gradient_norm, step.expected, "grad_norm")},
           &report->comparisons);
  }
  stepper->copy_to_host();
  append(compare_parameters(*stepper->model(), stepper->model()->parameters, golden.weights_after,
                            "weight after ", kWeightTolerance, /*relative=*/false),
         &report->comparisons);
}

}  // namespace

bool PassGap::is_tie() const { return gap < kTieGap; }

absl::StatusOr<GoldenReport> check_golden(const std::string& folder, const Mesh& mesh,
                                          DeviceKind device) {
  absl::StatusOr<GoldenFolder> golden = read_golden(folder);
  absl::Status status = agree(*mesh.world, golden.status());
  if (!status.ok()) return status;
  if (golden->config.routed_experts() < mesh.ep->size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        golden->config.routed_experts(), " routed experts on ", mesh.ep->size(), " ranks"));
  }
  status = check_limits(golden->config, device, Precision::kFp32);
  if (!status.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(folder, ": ", status.message()));
  }
  GoldenReport report;
  for (const auto check : {check_first_pass, check_trajectory}) {
    absl::StatusOr<std::unique_ptr<Stepper>> stepper = open_stepper(*golden, mesh, device);
    if (!stepper.ok()) return stepper.status();
    check(*golden, mesh, stepper->get(), &report);
  }
  all_reduce_deviations(*mesh.world, &report.comparisons);
  return report;
}

}  // namespace emo
