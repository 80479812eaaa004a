#include "train/config/run_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

namespace emo {
namespace {

using ::testing::HasSubstr;

const std::string kTiny = std::string(EMO_SOURCE_FOLDER) + "/configs/tiny.yaml";

std::string error_of(const std::vector<std::string>& overrides) {
  return std::string(read_run_config(kTiny, overrides).status().message());
}

std::string error_in(const std::string& yaml) {
  const std::string path = ::testing::TempDir() + "/emo_config.yaml";
  std::ofstream(path) << yaml;
  return std::string(read_run_config(path, {}).status().message());
}

TEST(RunConfig, EveryShippedConfigIsReadAndPrintsBackToItself) {
  int count = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::string(EMO_SOURCE_FOLDER) + "/configs")) {
    if (entry.path().extension() != ".yaml") continue;
    const auto config = read_run_config(entry.path().string(), {});
    ASSERT_TRUE(config.ok()) << config.status();
    const std::string path = ::testing::TempDir() + "/emo_printed.yaml";
    std::ofstream(path) << to_yaml(*config);
    // What is unset prints as 0 or "", which reads back as unset.
    const auto again = read_run_config(path, {});
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(to_pairs(*again), to_pairs(*config)) << entry.path();
    ++count;
  }
  EXPECT_GE(count, 4);
}

struct Mistake {
  const char* override_text;
  const char* message;
};
class Mistakes : public ::testing::TestWithParam<Mistake> {};
TEST_P(Mistakes, AreNamed) {
  EXPECT_THAT(error_of({GetParam().override_text}), HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    All, Mistakes,
    ::testing::Values(
        Mistake{"model.d_modle=64", "did you mean 'model.d_model'?"},
        Mistake{"trian.steps=3", "unknown key 'trian.steps'; did you mean 'train.steps'?"},
        Mistake{"train.steps=many", "must be an integer"}, Mistake{"train.steps=-3", "from 0"},
        Mistake{"schedule.peak=fast", "must be a number"},
        Mistake{"schedule.peak=nan", "must be a number"},
        Mistake{"schedule.kind=cosin", "did you mean 'cosine'?"},
        Mistake{"model.document_attention=yes", "true or false"},
        Mistake{"train.micro_batches=3", "batch 8 is not divisible by micro_batches 3"},
        Mistake{"parallel.ep=40", "31 routed experts on ep 40"},
        Mistake{"routing.pool={min: 2, max: 32}", "below the 4 routed experts"},
        Mistake{"routing.pool={min: 8, max: 4}", "above max 4"},
        Mistake{"routing.pool={min: 8, max: 400}", "above num_experts 32"},
        Mistake{"routing.pool={min: [4, 2], max: 32}", "below the 4 routed experts"},
        Mistake{"routing.pool={min: [4, 8], max: 6}", "pool min 8 is above max 6"},
        Mistake{"routing.pool={min: [4, 8, 8], max: 32}", "3 pool minima for 2 layers"},
        Mistake{"routing.pool={min: [4, x], max: 32}", "a list of numbers"},
        Mistake{"routing.pool={min: [], max: 32}", "a list of numbers"},
        Mistake{"routing.pool={fixed: 8, min: [4, 4]}", "exclude each other"},
        Mistake{"routing.pool_schedule=5", "must be none or {steps}"},
        Mistake{"routing.pool_schedule={step: 5}", "did you mean 'routing.pool_schedule.steps'?"},
        Mistake{"routing.pool_schedule={steps: 0}", "from 1"},
        Mistake{"routing.jitter=1", "from 0 to"}, Mistake{"routing.jitter=-0.1", "from 0 to"},
        Mistake{"routing.balance_scope=documents", "did you mean 'document'?"},
        Mistake{"routing.pool=some", "must be none, {min, max, eval}"},
        Mistake{"routing.pool={mim: 4}", "did you mean 'routing.pool.min'?"},
        Mistake{"model.top_k=1", "must be above 1"}, Mistake{"model.n_heads=5", "over 5 heads"},
        Mistake{"model.dense_layers=[0, 7]", "layers from 0 to 1"},
        Mistake{"model.dense_layers=[0]", "dense layers need model.d_ffn"},
        Mistake{"model.experts_per_layer=[32]", "1 numbers of experts for 2 layers"},
        Mistake{"model.experts_per_layer=[32, x]", "a list of numbers"},
        Mistake{"model.experts_per_layer=[32, 1]", "layer 1 has 1 experts"},
        Mistake{"model.experts_per_layer=[8, 16]", "the largest number is 16"},
        Mistake{"model.experts_per_layer=[32, 16]", "routing.pool=none"},
        Mistake{"data.path=somewhere", "one of path, mix and synthetic"},
        Mistake{"data.synthetic=none", "one of path, mix and synthetic"},
        Mistake{"data.synthetic=5", "none or a map"},
        Mistake{"train.tokens=100", "train.steps and train.tokens are both given"},
        Mistake{"train.steps=0", "either steps or tokens"},
        Mistake{"data.synthetic.vocab_size=1000", "above the model's 256"},
        Mistake{"train=3", "unknown key 'train'"}, Mistake{"steps", "section.key=value"}));

TEST(RunConfig, ReportsAllErrorsAtOnceWithTheirPlaces) {
  const std::string errors = error_in(
      "run:\n  folder: x\n  sede: 1\nmodel:\n  vocab_size: big\n  d_model: 64\n  n_layers: 2\n  "
      "n_heads: 3\n"
      "train:\n  steps: 1\n  steps: 2\n  batch: 4\n");
  EXPECT_THAT(errors,
              HasSubstr("emo_config.yaml:3:3: unknown key 'run.sede'; did you mean 'run.seed'?"));
  EXPECT_THAT(errors,
              HasSubstr("emo_config.yaml:5:3: model.vocab_size is 'big', must be an integer"));
  EXPECT_THAT(errors, HasSubstr("emo_config.yaml:11:3: key 'train.steps' stands twice"));
  EXPECT_THAT(errors, HasSubstr("emo_config.yaml:8:3: d_model 64 over 3 heads"));
}

TEST(RunConfig, BadYamlIsAnErrorWithItsPlace) {
  EXPECT_THAT(error_in("run: [1, 2\n"), HasSubstr("emo_config.yaml:2:1"));
  EXPECT_THAT(error_in("just text"), HasSubstr("a map of sections"));
  EXPECT_THAT(error_in(std::string(2 << 20, 'a')), HasSubstr("bytes"));
  EXPECT_EQ(read_run_config("/nowhere.yaml", {}).status().code(), absl::StatusCode::kNotFound);
}

TEST(RunConfig, ADeviceSaysWhatItCannotDo) {
  for (const auto& [key, message] : std::map<std::string, std::string>{
           {"model.d_expert=10", "multiples of 4"}, {"model.d_ffn=10", "d_ffn 10"}}) {
    const std::vector<std::string> overrides = {key, "routing.pool=none"};
    const auto on_cpu = read_run_config(kTiny, overrides);
    EXPECT_TRUE(on_cpu.ok()) << on_cpu.status();
    std::vector<std::string> on_device = overrides;
    on_device.push_back("parallel.device=emulated");
    EXPECT_THAT(std::string(read_run_config(kTiny, on_device).status().message()),
                HasSubstr(message));
  }
}

TEST(RunConfig, OverridesReplaceValuesAndMaps) {
  const auto config =
      read_run_config(kTiny, {"routing.pool=none", "train.steps=7", "optimizer.weight_decay=0"});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->routing.pool.kind, PoolPolicy::Kind::kNone);
  EXPECT_EQ(config->total_steps(), 7);
  const auto fixed = read_run_config(kTiny, {"routing.pool={fixed: 9}"});
  EXPECT_EQ(fixed->routing.pool.min, 9);
  EXPECT_EQ(fixed->routing.pool.max, 9);
  const auto tokens = read_run_config(kTiny, {"train.steps=0", "train.tokens=20_481"});
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  EXPECT_EQ(tokens->total_steps(), 11);  // of 8 x 256 tokens
}

// The tiny config without the seed of its weights.
std::string tiny_without_init_seed() {
  std::stringstream text;
  text << std::ifstream(kTiny).rdbuf();
  std::string yaml = text.str();
  const std::string line = "  init_seed: 0\n";
  yaml.erase(yaml.find(line), line.size());
  const std::string path = ::testing::TempDir() + "/emo_tiny.yaml";
  std::ofstream(path) << yaml;
  return path;
}

TEST(RunConfig, TheRunsSeedIsThatOfAllThatIsNotSaid) {
  const std::string tiny = tiny_without_init_seed();
  const auto config = read_run_config(tiny, {"run.seed=7"});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->model.init_seed, 7u);
  EXPECT_EQ(config->data_seed(), 7u);
  const auto said = read_run_config(tiny, {"run.seed=7", "model.init_seed=3", "data.seed=4"});
  EXPECT_EQ(said->model.init_seed, 3u);
  EXPECT_EQ(said->data_seed(), 4u);
}

// A config that did not say the seed of its weights meant 0 before, and its run goes on.
TEST(RunConfig, OlderRunsGoOnWithTheSeedThatWasNotSaid) {
  const std::string tiny = tiny_without_init_seed();
  auto then = to_pairs(*read_run_config(tiny, {"run.seed=7", "model.init_seed=0"}));
  const auto now = [&tiny](const std::vector<std::string>& overrides) {
    return to_pairs(*read_run_config(tiny, overrides));
  };
  EXPECT_FALSE(differences_that_matter(then, now({"run.seed=7"})).empty());  // it said 0
  std::erase_if(then, [](const auto& pair) { return pair.first == "checkpoint.last"; });
  EXPECT_TRUE(differences_that_matter(then, now({"run.seed=7"})).empty());
  EXPECT_FALSE(differences_that_matter(then, now({"run.seed=7", "model.init_seed=5"})).empty());
  EXPECT_FALSE(differences_that_matter(then, now({"run.seed=8"})).empty());
}

TEST(RunConfig, ABiasRateGivesTheModelBiases) {
  EXPECT_FALSE(read_run_config(kTiny, {})->model.selection_bias);
  EXPECT_TRUE(read_run_config(kTiny, {"routing.bias_rate=1e-3"})->model.selection_bias);
}

TEST(RunConfig, PoolSchedulesAreOfRanges) {
  const auto scheduled = [](const std::string& pool) {
    return read_run_config(kTiny, {"routing.pool=" + pool, "routing.pool_schedule={steps: 5}"});
  };
  const auto range = scheduled("{min: [6, 4], max: 32}");
  ASSERT_TRUE(range.ok()) << range.status();
  EXPECT_EQ(range->routing.pool_schedule.steps, 5);
  EXPECT_EQ(range->routing.pool.min, 4);
  EXPECT_EQ(range->routing.pool.min_by_layer, (std::vector<int64_t>{6, 4}));
  EXPECT_EQ(range->routing.pool.eval, 18);
  EXPECT_THAT(to_yaml(*range), HasSubstr("pool: {min: [6, 4], max: 32, eval: 18}"));
  EXPECT_THAT(to_yaml(*range), HasSubstr("pool_schedule: {steps: 5}"));
  EXPECT_TRUE(scheduled("{fixed: 9}").ok());
  for (const char* pool : {"none", "{top_p: 0.5, min: 4, max: 32}"}) {
    EXPECT_THAT(std::string(scheduled(pool).status().message()), HasSubstr("pool_schedule is of"));
  }
}

TEST(RunConfig, MaskAfterSoftmaxChangesWhatTheLossesSee) {
  const auto config = read_run_config(kTiny, {"routing.mask=after_softmax"});
  EXPECT_EQ(config->routing.balance_sees, ScoresSeen::kFull);
  EXPECT_EQ(config->routing.z_sees, ScoresSeen::kFull);
  const auto said = read_run_config(kTiny, {"routing.mask=after_softmax", "routing.z_sees=masked"});
  EXPECT_EQ(said->routing.z_sees, ScoresSeen::kMasked);
}

TEST(RunConfig, OnlyWhatChangesTheRunPreventsResuming) {
  const auto base = to_pairs(*read_run_config(kTiny, {}));
  const auto differs = [&](const std::string& override_text) {
    return !differences_that_matter(base, to_pairs(*read_run_config(kTiny, {override_text})))
                .empty();
  };
  EXPECT_TRUE(differs("train.steps=100"));  // the cosine's length
  const auto constant = [](const char* steps) {
    return to_pairs(*read_run_config(kTiny, {"schedule.kind=constant", steps}));
  };
  EXPECT_TRUE(
      differences_that_matter(constant("train.steps=7"), constant("train.steps=9")).empty());
  EXPECT_FALSE(differs("parallel.ep=2"));
  EXPECT_FALSE(differs("checkpoint.every=5"));
  EXPECT_FALSE(differs("run.folder=elsewhere"));
  for (const char* key : {"run.seed=9", "model.d_expert=40", "routing.balance_weight=0.2",
                          "train.batch=16", "train.micro_batches=2", "schedule.peak=1e-4",
                          "optimizer.beta1=0.8", "data.sequence_length=128", "routing.pool=none"}) {
    EXPECT_TRUE(differs(key)) << key;
  }
}

}  // namespace
}  // namespace emo
