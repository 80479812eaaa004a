#include "launch/commands.h"

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
#include "train/train_command.h"

namespace emo {

std::vector<Command> add_commands(CLI::App& app) {
  CLI::App* bench = app.add_subcommand("bench", "Measure speed")->require_subcommand(1);
  CLI::App* experts = app.add_subcommand("experts", "Rank and cut experts")->require_subcommand(1);
  CLI::App* data = app.add_subcommand("data", "Look at prepared data")->require_subcommand(1);
  return {
      prepare_command(app),
      data_show_command(*data),
      train_command(app, open_training_evaluation),
      eval_command(app),
      generate_command(app),
      experts_usage_command(*experts),
      experts_rank_command(*experts),
      experts_extract_command(*experts),
      experts_merge_command(*experts),
      experts_compare_command(*experts),
      experts_retention_command(*experts),
      experts_place_command(*experts),
      export_command(app),
      import_command(app),
      logits_command(app),
      check_command(app),
      bench_step_command(*bench),
      bench_exchange_command(*bench),
  };
}

}  // namespace emo
