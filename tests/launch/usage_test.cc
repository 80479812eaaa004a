#include "launch/usage.h"

#include <gtest/gtest.h>

#include "data/closest_name.h"
#include "data/exit_code.h"

namespace emo {
namespace {

TEST(Usage, SuggestsCommandsAndOptions) {
  CLI::App app;
  CLI::App* train = app.add_subcommand("train");
  bool quiet = false;
  train->add_flag("--quiet", quiet);
  app.add_subcommand("experts")->add_subcommand("rank");
  EXPECT_EQ(explain_usage(app, {"trian"}), "no command 'trian'; did you mean 'train'?");
  EXPECT_EQ(explain_usage(app, {"train", "x.yaml", "--quite"}),
            "no option '--quite'; did you mean '--quiet'?");
  EXPECT_EQ(explain_usage(app, {"experts", "rnak"}), "no command 'rnak'; did you mean 'rank'?");
  EXPECT_EQ(explain_usage(app, {"train", "x.yaml", "--quiet"}), "");
  EXPECT_EQ(explain_usage(app, {"zzzzzz"}), "no command 'zzzzzz'");
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
