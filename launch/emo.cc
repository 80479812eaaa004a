// The program: a table of subcommands, and the way from their errors to exit codes.
#include <c10/util/Exception.h>

#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "data/exit_code.h"
#include "data/prepare_command.h"
#include "eval/bench_command.h"
#include "eval/check_command.h"
#include "eval/eval_command.h"
#include "eval/experts_command.h"
#include "launch/usage.h"
#include "parallel/mpi_communicator.h"
#include "train/train_command.h"

namespace {

int report(const absl::Status& status) {
  if (emo::is_first_rank())
    std::fprintf(stderr, "emo: %s\n", std::string(status.message()).c_str());
  return emo::exit_code(status);
}

int usage_error(const CLI::App& app, const CLI::ParseError& error, int argc, char** argv) {
  if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
  if (!emo::is_first_rank()) return emo::kExitUsage;
  const std::string why = emo::explain_usage(app, {argv + 1, argv + argc});
  std::fprintf(stderr, "emo: %s\nRun 'emo --help', or 'emo COMMAND --help' for an example.\n",
               why.empty() ? error.what() : why.c_str());
  return emo::kExitUsage;
}

}  // namespace

int main(int argc, char** argv) {
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
      emo::train_command(app),
      emo::eval_command(app),
      emo::experts_rank_command(*experts),
      emo::experts_retention_command(*experts),
      emo::check_command(app),
      emo::bench_step_command(*bench),
  };
  try {
    app.parse(argc, argv);
    for (const emo::Command& command : commands) {
      if (!command.app->parsed()) continue;
      const absl::StatusOr<int> result = command.run();
      return result.ok() ? *result : report(result.status());
    }
  } catch (const CLI::ParseError& error) {
    return usage_error(app, error, argc, argv);
  } catch (const c10::Error& error) {
    std::fprintf(stderr, "emo: internal error: %s\n", error.what_without_backtrace());
    emo::abort_job(emo::kExitBug);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "emo: internal error: %s\n", error.what());
    emo::abort_job(emo::kExitBug);
  }
  return emo::kExitUsage;
}
