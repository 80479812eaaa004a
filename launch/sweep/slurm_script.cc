#include "launch/sweep/slurm_script.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "data/files/file_system.h"
#include "train/step/device.h"

namespace emo {

namespace {

// A value of an #SBATCH line: blanks and quotes behind a backslash, and no pattern.
std::string sbatch_text(const std::string& text) {
  return absl::StrReplaceAll(
      text, {{"\\", "\\\\"}, {"%", "%%"}, {" ", "\\ "}, {"\"", "\\\""}, {"'", "\\'"}});
}

}  // namespace

std::string shell_word(const std::string& text) {
  return absl::StrCat("'", absl::StrReplaceAll(text, {{"'", "'\\''"}}), "'");
}

std::string slurm_script(const SweepConfig& sweep, const std::vector<SweepRun>& runs,
                         const Installation& here, const std::string& working_folder,
                         const std::vector<std::string>& arguments) {
  int64_t ranks = 1;
  bool gpus = false;
  for (const SweepRun& run : runs) {
    ranks = std::max(ranks, run.ranks);
    gpus = gpus || run.config.parallel.device == DeviceKind::kCuda;
  }
  const std::string name = file_name(sweep.folder);
  const std::string folder =
      sweep.folder[0] == '/' ? sweep.folder : working_folder + "/" + sweep.folder;
  const std::string words = absl::StrJoin(
      arguments, " ",
      [](std::string* to, const std::string& a) { absl::StrAppend(to, shell_word(a)); });
  const std::vector<std::string> lines = {
      "#!/bin/bash",
      "# A task for each run of the sweep; each writes the report of what is done when it ends.",
      "# Other options of sbatch go before this file's name: --partition=... --time=...",
      absl::StrCat("#SBATCH --job-name=", name.empty() ? "sweep" : sbatch_text(name)),
      absl::StrCat("#SBATCH --array=0-", runs.size() - 1),
      absl::StrCat("#SBATCH --ntasks=", ranks),
      absl::StrCat("#SBATCH ", gpus ? "--gpus-per-task=1" : "--cpus-per-task=2"),
      absl::StrCat("#SBATCH --output=", sbatch_text(folder), "/slurm-%A-%a.txt"),
      "#SBATCH --signal=B:USR1@120",
      "#SBATCH --requeue",
      "cd " + shell_word(working_folder),
      "export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}",
      shell_word(here.program) + " sweep " + words + " --task \"$SLURM_ARRAY_TASK_ID\" &",
      "child=$!",
      "# Before the time is up, and when the job is to make room, the run saves, and the task goes",
      "# back into the queue.",
      "trap 'kill -USR1 \"$child\"' USR1 TERM",
      "wait \"$child\"",
      "status=$?",
      "while kill -0 \"$child\" 2>/dev/null; do wait \"$child\"; status=$?; done",
      "task=\"${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}\"",
      "[ \"$status\" != 75 ] || scontrol requeue \"$task\"",
      "exit \"$status\"\n"};
  return absl::StrJoin(lines, "\n");
}

}  // namespace emo
