// Runs GoogleTest on every rank: --ranks=N must be the world's size, or the run fails (a multi-rank
// test on one rank would pass by comparing nothing). Rank 0 prints; all ranks agree on the verdict.
#include <gtest/gtest.h>

#include <cstdio>
#include <string>

#include "model/host/instruction_set.h"
#include "parallel/mpi_communicator.h"
#include "tests/parallel/test_world.h"

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  if (const absl::Status chosen = emo::choose_instruction_set(); !chosen.ok()) {
    std::fprintf(stderr, "%s\n", std::string(chosen.message()).c_str());
    return 64;
  }
  const std::string argument = argc > 1 ? argv[1] : "";
  if (argument.rfind("--ranks=", 0) != 0) {
    std::fprintf(stderr, "usage: PROGRAM --ranks=N\n");
    return 64;
  }
  const auto world = emo::communicator_under_test(emo::world_communicator());
  const int ranks = std::stoi(argument.substr(8));
  if (world->size() != ranks) {
    std::fprintf(stderr, "expected %d ranks, there are %d\n", ranks,
                 static_cast<int>(world->size()));
    return 1;
  }
  emo::set_test_world(world.get());
  if (world->rank() != 0) {
    auto& listeners = ::testing::UnitTest::GetInstance()->listeners();
    delete listeners.Release(listeners.default_result_printer());
  }
  const bool passed = RUN_ALL_TESTS() == 0;
  const bool all = emo::on_all_ranks(passed);
  if (!passed && world->rank() != 0)
    std::fprintf(stderr, "rank %d has failures\n", static_cast<int>(world->rank()));
  return all ? 0 : 1;
}
