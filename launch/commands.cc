#include "launch/commands.h"

#include "data/prepare/commands.h"
#include "eval/commands.h"
#include "eval/training_evaluation.h"
#include "launch/sweep/sweep_command.h"
#include "train/train_command.h"

namespace emo {

std::vector<CommandGroup> command_groups() {
  return {{"data", "Look at prepared data and token files"},
          {"experts", "Rank and cut experts"},
          {"bench", "Measure speed"}};
}

std::vector<Command> all_commands() {
  return {prepare_command(),
          data_show_command(),
          data_check_command(),
          data_order_command(),
          data_index_command(),
          train_command(open_training_evaluation),
          sweep_command(),
          eval_command(),
          generate_command(),
          experts_usage_command(),
          experts_rank_command(),
          experts_extract_command(),
          experts_merge_command(),
          experts_compare_command(),
          experts_retention_command(),
          experts_place_command(),
          export_command(),
          import_command(),
          logits_command(),
          check_command(),
          bench_step_command(),
          bench_data_command(),
          bench_exchange_command()};
}

}  // namespace emo
