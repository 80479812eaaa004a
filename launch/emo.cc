// The program: a table of subcommands, and the way from their errors to exit codes.
#include <ATen/Parallel.h>
#include <c10/util/Exception.h>

#include <cstdio>
#include <exception>
#include <vector>

#include "data/exit_code.h"
#include "data/prepare_command.h"
#include "eval/bench_command.h"
#include "eval/check_command.h"
#include "eval/compare_command.h"
#include "eval/eval_command.h"
#include "eval/exchange_command.h"
#include "eval/extract_command.h"
#include "eval/generate_command.h"
#include "eval/logits_command.h"
#include "eval/place_command.h"
#include "eval/rank_command.h"
#include "eval/retention_command.h"
#include "eval/training_evaluation.h"
#include "eval/usage_command.h"
#include "launch/usage.h"
#include "parallel/mpi_communicator.h"
#include "train/train_command.h"

int main(int argc, char** argv) {
  at::set_num_threads(1);  // libtorch's own: ours are parallel/thread_pool.h
  std::set_terminate([] { emo::abort_job(emo::kExitBug); });  // from threads, where nothing catches
  CLI::App app{
      "emo: pretrain mixture-of-experts language models with document-level routing,\n"
      "then rank, cut and evaluate their experts."};
  app.set_version_flag("--version", "emo " EMO_VERSION);
  app.require_subcommand(1);
  app.footer(
      "Exit codes: 0 done, 1 a comparison differs, 64 usage or config, 65 bad data, 66 missing\n"
      "input, 69 peer lost, 70 bug, 73 cannot write, 74 I/O, 75 stopped after saving, 76 stalled,\n"
      "77 numbers not finite.");
  CLI::App* bench = app.add_subcommand("bench", "Measure speed")->require_subcommand(1);
  CLI::App* experts = app.add_subcommand("experts", "Rank and cut experts")->require_subcommand(1);
  CLI::App* data = app.add_subcommand("data", "Look at prepared data")->require_subcommand(1);
  const std::vector<emo::Command> commands = {
      emo::prepare_command(app),
      emo::data_show_command(*data),
      emo::train_command(app, emo::open_training_evaluation),
      emo::eval_command(app),
      emo::generate_command(app),
      emo::experts_usage_command(*experts),
      emo::experts_rank_command(*experts),
      emo::experts_extract_command(*experts),
      emo::experts_merge_command(*experts),
      emo::experts_compare_command(*experts),
      emo::experts_retention_command(*experts),
      emo::experts_place_command(*experts),
      emo::export_command(app),
      emo::import_command(app),
      emo::logits_command(app),
      emo::check_command(app),
      emo::bench_step_command(*bench),
      emo::bench_exchange_command(*bench),
  };
  try {
    app.parse(argc, argv);
    for (const emo::Command& command : commands) {
      if (!command.app->parsed()) continue;
      const absl::StatusOr<int> result = command.run();
      return result.ok() ? *result : emo::report_error(result.status(), emo::is_first_rank());
    }
  } catch (const CLI::ParseError& error) {
    return emo::explain_parse_error(app, error, argc, argv, emo::is_first_rank());
  } catch (const c10::Error& error) {
    std::fprintf(stderr, "emo: internal error: %s\n", error.what_without_backtrace());
    emo::abort_job(emo::kExitBug);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "emo: internal error: %s\n", error.what());
    emo::abort_job(emo::kExitBug);
  }
  return emo::kExitUsage;
}
