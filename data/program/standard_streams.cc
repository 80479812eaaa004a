#include "data/program/standard_streams.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <initializer_list>

namespace emo {

void keep_standard_descriptors() {
  for (const int descriptor : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(descriptor, F_GETFD) >= 0) continue;
    // For the other direction than the one of use: output that is lost must be an error.
    const int flags = descriptor == STDIN_FILENO ? O_WRONLY : O_RDONLY;
    // The lowest number that is free, which is this one.
    if (::open("/dev/null", flags) != descriptor) std::abort();
  }
}

}  // namespace emo
