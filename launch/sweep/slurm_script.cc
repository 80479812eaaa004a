#include "launch/sweep/slurm_script.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "data/files/file_system.h"
#include "train/step/device.h"

namespace emo {

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
  return absl::StrCat(
      "#!/bin/bash\n"
      "# A task for each run of the sweep; the last to end writes the report. Options of sbatch "
      "go\n"
      "# before those below: sbatch --partition=... --time=... ",
      folder,
      "/sweep.sbatch\n"
      "#SBATCH --job-name=",
      name,
      "\n"
      "#SBATCH --array=0-",
      runs.size() - 1,
      "\n"
      "#SBATCH --ntasks=",
      ranks, "\n", gpus ? "#SBATCH --gpus-per-task=1\n" : "#SBATCH --cpus-per-task=2\n",
      "#SBATCH --output=", folder,
      "/slurm-%A-%a.txt\n"
      "#SBATCH --signal=B:USR1@120\n"
      "#SBATCH --requeue\n"
      "cd ",
      shell_word(working_folder),
      "\n"
      "export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}\n",
      shell_word(here.program), " sweep ", words,
      " --task \"$SLURM_ARRAY_TASK_ID\" &\n"
      "child=$!\n"
      "# Before the time is up, and when the job is to make room: the run saves, and the task "
      "goes\n"
      "# back into the queue.\n"
      "trap 'kill -USR1 \"$child\"' USR1 TERM\n"
      "wait \"$child\"\n"
      "status=$?\n"
      "while kill -0 \"$child\" 2>/dev/null; do wait \"$child\"; status=$?; done\n"
      "[ \"$status\" != 75 ] || scontrol requeue \"$SLURM_JOB_ID\"\n"
      "exit \"$status\"\n");
}

}  // namespace emo
