#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <string>

#include "data/program/exit_code.h"
#include "data/program/standard_streams.h"
#include "data/program/table_number.h"

namespace emo {
namespace {

TEST(TableNumber, AMeanOverNothingIsADash) {
  EXPECT_EQ(table_number(1.25, 8, 3), "   1.250");
  EXPECT_EQ(table_number(-1.25, 8, 1, Sign::kAlways), "    -1.2");
  EXPECT_EQ(table_number(1.5, 8, 1, Sign::kAlways), "    +1.5");
  EXPECT_EQ(table_number(std::nan(""), 8, 3, Sign::kAlways), "       -");
  EXPECT_EQ(table_number(-std::nan(""), 3, 3), "  -");
  EXPECT_EQ(table_number(INFINITY, 5, 1), "  inf");
}

TEST(ExitCode, TheTextNamesEveryCode) {
  const std::string text = exit_codes_text();
  for (int code = 0; code <= static_cast<int>(absl::StatusCode::kUnauthenticated); ++code) {
    const int exit = exit_code(absl::Status(static_cast<absl::StatusCode>(code), "x"));
    EXPECT_NE(text.find(std::to_string(exit) + " "), std::string::npos) << exit;
  }
  EXPECT_EQ(text.rfind("Exit codes: 0 done, 1 ", 0), 0u) << text;
}

// In a process of its own: descriptors are the process's.
TEST(StandardStreams, NoFileBecomesOne) {
  for (const int closed : {0b001, 0b010, 0b100, 0b110, 0b111}) {
    const auto open_a_file = [closed] {
      for (int fd = 0; fd < 3; ++fd) {
        if ((closed >> fd & 1) != 0) ::close(fd);
      }
      keep_standard_descriptors();
      const int file = ::open("/dev/null", O_RDWR);
      bool fails = true;  // as what is closed does
      char byte = 0;
      if ((closed & 1) != 0) fails = fails && ::read(0, &byte, 1) < 0;
      if ((closed & 2) != 0) fails = fails && ::write(1, &byte, 1) < 0;
      if ((closed & 4) != 0) fails = fails && ::write(2, &byte, 1) < 0;
      _exit(file > 2 && fails ? 0 : 1);
    };
    EXPECT_EXIT(open_a_file(), ::testing::ExitedWithCode(0), "") << closed;
  }
}

}  // namespace
}  // namespace emo
