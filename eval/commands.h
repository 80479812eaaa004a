// The subcommands of this folder; each stands in the file NAME_command.cc of its room, with what it
// takes and an example. All are collective where the program runs on several ranks.
#pragma once

#include "data/program/command.h"

namespace emo {

Command eval_command();               // eval_command.cc: losses and answers to tasks
Command generate_command();           // generation/
Command experts_usage_command();      // experts/
Command experts_rank_command();       //
Command experts_extract_command();    //
Command experts_merge_command();      // extract_command.cc
Command experts_compare_command();    //
Command experts_retention_command();  //
Command experts_place_command();      //
Command export_command();             // convert/conversion_command.cc
Command import_command();             //
Command logits_command();             // verify/
Command check_command();              //
Command bench_step_command();         // bench/bench_command.cc
Command bench_data_command();
Command bench_exchange_command();  //

}  // namespace emo
