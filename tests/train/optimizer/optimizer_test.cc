#include "train/optimizer/optimizer.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <utility>

#include "tests/model/backends.h"
#include "tests/model/random_batch.h"
#include "tests/model/sample_configs.h"
#include "train/optimizer/schedule.h"
#include "train/plan/flops.h"

namespace emo {
namespace {

// A control that scales gradients, and allows the update.
at::Tensor scaled_by(float scale) { return at::tensor({scale, 1.0f}); }

class Optimizer : public ::testing::TestWithParam<On> {
 protected:
  static Model model(bool selection_bias = false) {
    ModelConfig config = small_config();
    config.d_expert = 12;
    config.selection_bias = selection_bias;
    return {config, RoutingContract(), 1, {}, {}, make_backend_on(GetParam(), at::kCPU)};
  }
};
INSTANTIATE_TEST_SUITE_P(All, Optimizer, both_backends(),
                         [](const auto& test) { return name_of(test.param); });

// torch.optim.AdamW's update in fp64, parameter by parameter.
TEST_P(Optimizer, AdamWEqualsThePlainFormula) {
  Model model = this->model();
  const TrainedParts all = trained_parts(model.config, model.layout, Freeze::kNone);
  fill_random(model, 1);
  const Gradients gradients(model);
  OptimizerState state = make_optimizer_state(model);
  AdamWOptions options;
  std::map<std::string, at::Tensor> p, m, v;
  const auto view = [](const ParameterInfo& info, const FlatBuffers& b) {
    return at::from_blob(parameter_data(info, b), info.shape, at::kFloat);
  };
  for (const ParameterInfo& info : model.layout.parameters) {
    p[info.name] = view(info, model.parameters).to(at::kDouble).clone();
    m[info.name] = at::zeros_like(p[info.name]);
    v[info.name] = at::zeros_like(p[info.name]);
  }
  for (int step = 1; step <= 4; ++step) {
    const double lr = 1e-2 / step;
    for (const ParameterInfo& info : model.layout.parameters) {
      view(info, gradients.buffers).copy_(at::randn(info.shape));
      const at::Tensor g = view(info, gradients.buffers).to(at::kDouble) * 0.5;
      at::Tensor& x = p[info.name];
      if (info.name != "model.embed_tokens.weight") x.mul_(1 - lr * options.weight_decay);
      m[info.name] = m[info.name] * options.beta1 + g * (1 - options.beta1);
      v[info.name] = v[info.name] * options.beta2 + g * g * (1 - options.beta2);
      const double c1 = 1 - std::pow(options.beta1, step), c2 = 1 - std::pow(options.beta2, step);
      x.sub_(m[info.name] / c1 / ((v[info.name] / c2).sqrt() + options.epsilon) * lr);
    }
    adamw_step(all, {options, lr, scaled_by(0.5f)}, gradients.buffers, &model, &state);
  }
  for (const ParameterInfo& info : model.layout.parameters) {
    const double difference =
        (view(info, model.parameters).to(at::kDouble) - p[info.name]).abs().max().item<double>();
    EXPECT_LT(difference, 2e-6) << info.name;
  }
}

// A device's parameters in bf16 are the nearest of fp32 masters, which move as the host's do.
TEST(Bf16Optimizer, MovesMastersAndRoundsThem) {
  ModelConfig config = small_config();
  config.d_expert = 16;
  Model host(config, RoutingContract(), 1);
  Model model(config, RoutingContract(), 1, {}, {},
              make_backend_on(On::kDevice, at::kCPU, at::kBFloat16));
  fill_random(host, 1);
  load_parameters(host.parameters, &model);
  OptimizerState state = make_optimizer_state(model);
  OptimizerState host_state = make_optimizer_state(host);
  load_masters(model.layout, host.parameters, &state);
  const Gradients gradients(model);
  const TrainedParts all = trained_parts(config, model.layout, Freeze::kNone);
  for (int step = 1; step <= 3; ++step) {
    gradients.buffers.dense.uniform_(-1, 1);
    gradients.buffers.experts.uniform_(-1, 1);
    adamw_step(all, {{}, 1e-2, scaled_by(0.5f)}, gradients.buffers, &model, &state);
    adamw_step(all, {{}, 1e-2, scaled_by(0.5f)}, gradients.buffers, &host, &host_state);
    for (const auto buffer : {&FlatBuffers::dense, &FlatBuffers::experts}) {
      const at::Tensor& master = state.master.*buffer;
      EXPECT_LT((master - host.parameters.*buffer).abs().max().item<float>(), 2e-6);
      EXPECT_TRUE(at::equal(model.parameters.*buffer, master.to(at::kBFloat16)));
    }
  }
}

// What is frozen keeps its bits and counts in no norm; all else is updated as if nothing were.
TEST_P(Optimizer, LeavesFrozenExpertsAndRoutersAlone) {
  const auto frozen = [](const std::string& name, bool shared_expert, Freeze freeze) {
    if (name.find(".mlp.experts.") != std::string::npos) {
      return freeze != Freeze::kNone && (!shared_expert || freeze >= Freeze::kRoutedShared);
    }
    return is_selection_bias(name) || (name.find(".mlp.gate.weight") != std::string::npos &&
                                       freeze == Freeze::kRoutedSharedRouter);
  };
  for (const Freeze freeze :
       {Freeze::kNone, Freeze::kRouted, Freeze::kRoutedShared, Freeze::kRoutedSharedRouter}) {
    Model model = this->model(/*selection_bias=*/true);
    Model free = this->model(/*selection_bias=*/true);
    fill_random(model, 1);
    fill_random(free, 1);
    const Gradients gradients(model);
    gradients.buffers.dense.uniform_(-1, 1);
    gradients.buffers.experts.uniform_(-1, 1);
    const FlatBuffers before{model.parameters.dense.clone(), model.parameters.experts.clone()};
    OptimizerState state = make_optimizer_state(model);
    OptimizerState free_state = make_optimizer_state(free);
    const TrainedParts trained = trained_parts(model.config, model.layout, freeze);
    const TrainedParts all = trained_parts(model.config, model.layout, Freeze::kNone);
    adamw_step(trained, {{}, 0.1, scaled_by(1)}, gradients.buffers, &model, &state);
    adamw_step(all, {{}, 0.1, scaled_by(1)}, gradients.buffers, &free, &free_state);
    double squares = 0;
    int64_t left_alone = 0;
    for (const ParameterInfo& info : model.layout.parameters) {
      const bool shared = info.buffer == ParameterBuffer::kDense;
      const bool is_frozen = frozen(info.name, shared, freeze);
      const FlatBuffers& expected = is_frozen ? before : free.parameters;
      EXPECT_EQ(std::memcmp(parameter_data(info, model.parameters), parameter_data(info, expected),
                            info.numel() * sizeof(float)),
                0)
          << info.name;
      left_alone += is_frozen ? 1 : 0;
      const float* g = parameter_data(info, gradients.buffers);
      for (int64_t i = 0; !is_frozen && i < info.numel(); ++i) {
        squares += static_cast<double>(g[i]) * g[i];
      }
    }
    EXPECT_EQ(left_alone > model.config.moe_layers(), freeze != Freeze::kNone);  // but for biases
    const double norm =
        std::sqrt(gradient_squares(model, trained, gradients.buffers).item<double>());
    EXPECT_NEAR(norm, std::sqrt(squares), 0.02 * norm);  // padding holds gradients here
  }
}

TEST_P(Optimizer, NormOfEverythingOnceAndTheReferencesFactor) {
  const Model model = this->model();
  const Gradients gradients(model);
  double squares = 0;
  for (const ParameterInfo& info : model.layout.parameters) {
    float* data = parameter_data(info, gradients.buffers);
    for (int64_t i = 0; i < info.numel(); ++i) {
      data[i] = 0.01f * static_cast<float>(i % 7);
      squares += static_cast<double>(data[i]) * data[i];
    }
  }
  const TrainedParts all = trained_parts(model.config, model.layout, Freeze::kNone);
  EXPECT_NEAR(std::sqrt(gradient_squares(model, all, gradients.buffers).item<double>()),
              std::sqrt(squares), 1e-5);
  const auto control = [&](double cross_entropy, double norm, double limit) {
    at::Tensor out;
    model.backend->clip_control(at::full({1}, cross_entropy, at::kDouble),
                                at::full({1}, norm * norm, at::kDouble), limit, &out);
    return std::pair(out[0].item<float>(), out[1].item<float>());
  };
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  EXPECT_EQ(control(1, 0.5, 1), std::pair(1.0f, 1.0f));
  EXPECT_EQ(control(1, 4, 1), std::pair(static_cast<float>(1 / (4 + 1e-6)), 1.0f));
  EXPECT_EQ(control(1, 4, 0), std::pair(1.0f, 1.0f));
  EXPECT_EQ(control(std::nan(""), 4, 0).second, 0);
  EXPECT_EQ(control(1, kInfinity, 1).second, 0);
}

TEST(Schedule, HasTheReferencesRates) {
  Schedule cosine;  // the recipes': 4e-3, 2000 steps of warm-up, to a tenth
  EXPECT_DOUBLE_EQ(learning_rate(cosine, 1, 238419), 2e-6);
  EXPECT_DOUBLE_EQ(learning_rate(cosine, 2000, 238419), 4e-3);
  EXPECT_DOUBLE_EQ(learning_rate(cosine, 238419, 238419), 4e-4);
  EXPECT_NEAR(learning_rate(cosine, (238419 + 2000) / 2, 238419), 2.2e-3, 1e-7);
  Schedule anneal;  // 4e-4 to 0 over 11920 steps
  anneal.kind = Schedule::Kind::kLinear;
  anneal.peak = 4e-4;
  anneal.warmup_steps = 0;
  anneal.final_fraction = 0;
  EXPECT_DOUBLE_EQ(learning_rate(anneal, 244379 - 238419, 11920), 2e-4);
  EXPECT_EQ(learning_rate(anneal, 11920, 11920), 0);
  Schedule constant;
  constant.kind = Schedule::Kind::kConstant;
  EXPECT_EQ(learning_rate(constant, 100000, 200000), 4e-3);
}

TEST(Flops, AreTheReferencesAndOurs) {
  const ModelConfig config = released_config();
  EXPECT_DOUBLE_EQ(reference_flops_per_token(config, 4096), 9311354880.0);
  // By hand for one token in a document of its own: 6 x (head + 16 x (attention's four products,
  // two of one pair each, the router, eight experts)).
  const double layer = 4.0 * 2048 * 2048 + 2 * 2048 + 2048.0 * 127 + 8 * 3.0 * 2048 * 1024;
  EXPECT_DOUBLE_EQ(flops_per_token(config, {1}), 6 * (2048.0 * 100352 + 16 * layer));
  EXPECT_LT(flops_per_token(config, {4096}), reference_flops_per_token(config, 4096));
}

}  // namespace
}  // namespace emo
