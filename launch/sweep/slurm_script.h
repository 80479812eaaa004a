// A sweep as an array of Slurm's: a task for each run.
#pragma once

#include <string>

#include "launch/sweep/run_stages.h"
#include "launch/sweep/sweep_runs.h"

namespace emo {

// The text of a batch script. Task i carries out run i; the last to end writes the report. What
// sbatch is told beside it (partition, account, time) its own options say. `arguments`: of
// `emo sweep`, but for --slurm.
std::string slurm_script(const SweepConfig& sweep, const std::vector<SweepRun>& runs,
                         const Installation& here, const std::string& working_folder,
                         const std::vector<std::string>& arguments);

// Text as one word of a shell.
std::string shell_word(const std::string& text);

}  // namespace emo
