#include "launch/command_line.h"

#include <gtest/gtest.h>

#include "data/program/closest_name.h"
#include "data/program/exit_code.h"

namespace emo {
namespace {

TEST(Usage, SuggestsCommandsAndOptions) {
  bool quiet = false;
  std::string config;
  CommandLine line;
  line.groups = {{"experts", "Rank and cut"}};
  Command& train = line.commands.emplace_back();
  train.name = "train";
  train.options.add("CONFIG", &config, "a file");
  train.options.add("--quiet", &quiet, "no progress");
  line.commands.emplace_back().name = "experts rank";
  EXPECT_EQ(explain_usage(line, {"trian"}), "no command 'trian'; did you mean 'train'?");
  EXPECT_EQ(explain_usage(line, {"train", "x.yaml", "--quite"}),
            "no option '--quite'; did you mean '--quiet'?");
  EXPECT_EQ(explain_usage(line, {"experts", "rnak"}),
            "no command 'experts rnak'; did you mean 'rank'?");
  EXPECT_EQ(explain_usage(line, {"train", "x.yaml", "--quiet"}), "");
  EXPECT_EQ(explain_usage(line, {"zzzzzz"}), "no command 'zzzzzz'");
}

// What options promise holds for each kind of target.
TEST(Arguments, GoWhereOptionsSay) {
  struct Targets {
    bool flag = false;
    int64_t steps = 5;
    double share = 0.5;
    std::string method = "router";
    std::vector<std::string> keep, stop, inputs;
  };
  const auto parse = [](std::vector<const char*> arguments, Targets* t) {
    CommandLine line;
    Command& command = line.commands.emplace_back();
    command.name = "go";
    command.options.add("INPUT", &t->inputs, "files").required().at_least_values(2);
    command.options.add("--flag", &t->flag, "a flag");
    command.options.add("--steps", &t->steps, "a number").range(1, 10).show_default();
    command.options.add("--share", &t->share, "a number").at_least(0);
    command.options.add("--method", &t->method, "a word").one_of({"router", "random"});
    command.options.add("--keep", &t->keep, "a list").commas();
    command.options.add("--stop", &t->stop, "a list").each_once();
    arguments.insert(arguments.begin(), {"emo", "go"});
    const auto parsed = parse_arguments(line, static_cast<int>(arguments.size()), arguments.data(),
                                        /*speaks=*/false);
    return std::holds_alternative<int>(parsed) ? std::get<int>(parsed) : -1;
  };
  Targets all;
  EXPECT_EQ(parse({"a", "b", "--flag", "--steps", "7", "--share", "0.25", "--method", "random",
                   "--keep", "8,0.5", "--stop", "x", "--stop", "y,z"},
                  &all),
            -1);
  EXPECT_TRUE(all.flag);
  EXPECT_EQ(all.steps, 7);
  EXPECT_EQ(all.share, 0.25);
  EXPECT_EQ(all.method, "random");
  EXPECT_EQ(all.keep, (std::vector<std::string>{"8", "0.5"}));
  EXPECT_EQ(all.stop, (std::vector<std::string>{"x", "y,z"}));
  EXPECT_EQ(all.inputs, (std::vector<std::string>{"a", "b"}));
  for (const std::vector<const char*>& bad :
       std::vector<std::vector<const char*>>{{},
                                             {"a"},
                                             {"a", "b", "--steps", "0"},
                                             {"a", "b", "--steps", "11"},
                                             {"a", "b", "--steps", "1.5"},
                                             {"a", "b", "--share", "nan"},
                                             {"a", "b", "--share", "-1"},
                                             {"a", "b", "--method", "other"},
                                             {"a", "b", "--flagg"}}) {
    Targets ignored;
    EXPECT_EQ(parse(bad, &ignored), kExitUsage) << bad.size();
  }
  Targets none;
  EXPECT_EQ(parse({"--help"}, &none), kExitDone);
}

TEST(ClosestName, KeepsToPlausibleTypos) {
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3);
  EXPECT_EQ(edit_distance("", "abc"), 3);
  EXPECT_EQ(closest_name("model.d_modle", {"model.d_model", "model.n_heads"}), "model.d_model");
  EXPECT_EQ(closest_name("abc", {"xyz"}), "");
}

TEST(ExitCode, FollowsTheTable) {
  EXPECT_EQ(exit_code(absl::OkStatus()), 0);
  EXPECT_EQ(exit_code(absl::InvalidArgumentError("")), 64);
  EXPECT_EQ(exit_code(absl::DataLossError("")), 65);
  EXPECT_EQ(exit_code(absl::NotFoundError("")), 66);
  EXPECT_EQ(exit_code(absl::PermissionDeniedError("")), 73);
  EXPECT_EQ(exit_code(absl::UnknownError("")), 74);
  EXPECT_EQ(exit_code(absl::CancelledError("")), 75);
  EXPECT_EQ(exit_code(absl::AbortedError("")), 77);
  EXPECT_EQ(exit_code(absl::InternalError("")), 70);
}

}  // namespace
}  // namespace emo
