// The program: from arguments to a subcommand (commands.h), and from errors to exit codes.
#include <ATen/Parallel.h>
#include <c10/util/Exception.h>
#include <malloc.h>
#include <sys/resource.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <variant>

#include "data/files/file_system.h"
#include "data/program/exit_code.h"
#include "data/program/standard_streams.h"
#include "launch/command_line.h"
#include "launch/commands.h"
#include "launch/version.h"
#include "model/host/instruction_set.h"
#include "parallel/mpi_communicator.h"

namespace {

// Large tensors in huge pages, where the system gives them to those who ask; and in mappings of
// their own, however many were freed before, so that memory that is freed is the system's again.
void prepare_memory() {
  setenv("THP_MEM_ALLOC_ENABLE", "1", /*overwrite=*/0);  // libtorch reads it at its first tensor
  mallopt(M_MMAP_THRESHOLD, 4 << 20);
}

// Every rank keeps the files of its data open, over a thousand for the mix of the 1T run.
void allow_many_files() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace

int main(int argc, char** argv) {
  emo::keep_standard_descriptors();
  prepare_memory();
  allow_many_files();
  const absl::Status chosen = emo::choose_instruction_set();
  if (!chosen.ok()) return emo::report_error(chosen, /*speaks=*/true);  // CPUs of ranks may differ
  at::set_num_threads(1);  // libtorch's own: ours are parallel/thread_pool.h
  std::set_terminate([] { emo::abort_job(emo::kExitBug); });  // from threads, where nothing catches
  const emo::CommandLine line{
      "emo: pretrain mixture-of-experts language models with document-level routing,\n"
      "then rank, cut and evaluate their experts.",
      emo::version_text(), emo::exit_codes_text(), emo::command_groups(), emo::all_commands()};
  try {
    const auto parsed = emo::parse_arguments(line, argc, argv, emo::is_first_rank());
    const int* answered = std::get_if<int>(&parsed);  // --help, --version, wrong usage
    absl::StatusOr<int> result =
        answered != nullptr ? *answered : std::get<const emo::Command*>(parsed)->run();
    std::cout.flush();
    if (result.ok() && (std::fflush(stdout) != 0 || std::ferror(stdout) != 0 || !std::cout)) {
      result = emo::errno_status("cannot write", "standard output");
    }
    return result.ok() ? *result : emo::report_error(result.status(), emo::is_first_rank());
  } catch (const c10::Error& error) {
    std::fprintf(stderr, "emo: internal error: %s\n", error.what_without_backtrace());
    emo::abort_job(emo::kExitBug);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "emo: internal error: %s\n", error.what());
    emo::abort_job(emo::kExitBug);
  }
}
