#include "data/files/output.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"

namespace emo {
namespace {

namespace fs = std::filesystem;

// Counts what is left behind, and fails where it is told to.
class FailingFileSystem : public FileSystem {
 public:
  explicit FailingFileSystem(std::string failing) : failing_(std::move(failing)) {}
  absl::StatusOr<std::unique_ptr<WritableFile>> create(const std::string& path,
                                                       Writing writing) override {
    if (failing_ == "create") return absl::ResourceExhaustedError("full");
    return real_.create(path, writing);
  }
  absl::Status rename(const std::string& from, const std::string& to) override {
    if (failing_ == "rename") return absl::ResourceExhaustedError("full");
    return real_.rename(from, to);
  }
  absl::Status make_directories(const std::string& path) override {
    return real_.make_directories(path);
  }
  absl::Status sync_directory(const std::string& path) override {
    return real_.sync_directory(path);
  }
  absl::Status remove_all(const std::string& path) override { return real_.remove_all(path); }

 private:
  FileSystem& real_ = posix_file_system();
  std::string failing_;
};

class OutputTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = absl::StrCat(::testing::TempDir(), "/emo_output_test-", ::getpid());
    fs::remove_all(folder_);
    fs::create_directories(folder_ + "/other");
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string path(const std::string& name) const { return folder_ + "/" + name; }
  static absl::Status write(const std::string& path, absl::string_view contents) {
    return write_file_durably(posix_file_system(), path, contents);
  }
  static std::string contents(const std::string& path) {
    const absl::StatusOr<std::string> text = read_file(path, 1 << 20);
    return text.ok() ? *text : text.status().ToString();
  }
  // Names of what stands in the folder and the one below it.
  std::vector<std::string> names() const {
    std::vector<std::string> found = *list_directory(folder_);
    const std::vector<std::string> below = *list_directory(folder_ + "/other");
    for (const std::string& name : below) {
      found.push_back("other/" + name);
    }
    return found;
  }

  std::string folder_;
};

TEST_F(OutputTest, AFileIsReplacedByAnother) {
  ASSERT_TRUE(write(path("a"), "one").ok());
  fs::create_hard_link(path("a"), path("b"));
  ASSERT_TRUE(write(path("a"), "two").ok());
  EXPECT_EQ(contents(path("a")), "two");
  EXPECT_EQ(contents(path("b")), "one");  // not written into
  EXPECT_EQ(names(), (std::vector<std::string>{"a", "b", "other"}));
}

TEST_F(OutputTest, WhatStoodThereStaysUntilAllIsWritten) {
  ASSERT_TRUE(write(path("a"), "one").ok());
  for (const Writing writing : {Writing::kPrompt, Writing::kStreamed}) {
    {
      auto file = create_output(posix_file_system(), path("a"), writing);
      ASSERT_TRUE(file.ok()) << file.status();
      ASSERT_TRUE((*file)->append("two").ok());
      ASSERT_TRUE((*file)->sync().ok());
      EXPECT_EQ(contents(path("a")), "one");
    }
    EXPECT_EQ(names(), (std::vector<std::string>{"a", "other"}));  // given up, nothing is left
  }
  for (const char* failing : {"create", "rename"}) {
    FailingFileSystem full(failing);
    EXPECT_EQ(write_file_durably(full, path("a"), "two").code(),
              absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(contents(path("a")), "one");
    EXPECT_EQ(names(), (std::vector<std::string>{"a", "other"}));
  }
}

TEST_F(OutputTest, LinksStay) {
  ASSERT_TRUE(write(path("other/a"), "one").ok());
  fs::create_symlink("other/a", path("relative"));
  fs::create_symlink(path("relative"), path("absolute"));
  fs::create_symlink("other/new", path("dangling"));
  ASSERT_TRUE(write(path("absolute"), "two").ok());
  EXPECT_EQ(contents(path("other/a")), "two");
  ASSERT_TRUE(write(path("dangling"), "three").ok());
  EXPECT_EQ(contents(path("other/new")), "three");
  for (const char* link : {"relative", "absolute", "dangling"}) {
    EXPECT_TRUE(fs::is_symlink(path(link))) << link;
  }
  EXPECT_EQ(names(), (std::vector<std::string>{"absolute", "dangling", "other", "relative",
                                               "other/a", "other/new"}));
}

TEST_F(OutputTest, LinksInACircleAndFoldersAreErrors) {
  fs::create_symlink("b", path("a"));
  fs::create_symlink("a", path("b"));
  EXPECT_EQ(write(path("a"), "x").code(), absl::StatusCode::kUnknown);
  EXPECT_EQ(write(path("other"), "x").code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(write(path("nowhere/a"), "x").code(), absl::StatusCode::kPermissionDenied);
}

// Of the system's devices through a link of ours: what goes wrong takes the link.
TEST_F(OutputTest, DevicesAreWrittenTo) {
  fs::create_symlink("/dev/null", path("null"));
  fs::create_symlink("/dev/full", path("full"));
  EXPECT_EQ(output_place(path("null"))->kind, OutputPlace::Kind::kStream);
  EXPECT_TRUE(write(path("null"), "x").ok());
  const absl::Status full = write(path("full"), "x");
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted) << full;
  EXPECT_NE(full.message().find("/dev/full"), absl::string_view::npos) << full;
  EXPECT_TRUE(fs::is_symlink(path("null")) && fs::is_character_file(path("null")));
  EXPECT_TRUE(fs::is_symlink(path("full")) && fs::is_character_file(path("full")));
}

TEST_F(OutputTest, APipeIsWrittenTo) {
  ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0600), 0);
  for (const Writing writing : {Writing::kPrompt, Writing::kStreamed}) {
    std::string read;
    std::thread reader([&] {
      const int fd = ::open(path("pipe").c_str(), O_RDONLY);
      char buffer[1000];
      for (ssize_t n = 0; (n = ::read(fd, buffer, sizeof buffer)) > 0;) read.append(buffer, n);
      ::close(fd);
    });
    auto file = create_output(posix_file_system(), path("pipe"), writing);
    EXPECT_TRUE(file.ok()) << file.status();
    const std::string text(300'000, 'x');
    EXPECT_TRUE((*file)->append(text).ok());
    EXPECT_TRUE((*file)->sync().ok());
    EXPECT_TRUE((*file)->close().ok());
    reader.join();
    EXPECT_EQ(read.size(), text.size());
    EXPECT_TRUE(fs::is_fifo(path("pipe")));
  }
}

TEST_F(OutputTest, WhatIsOpenIsWrittenToWhereItStands) {
  const int fd = ::open(path("a").c_str(), O_WRONLY | O_CREAT, 0600);
  ASSERT_EQ(::write(fd, "before ", 7), 7);
  fs::create_symlink(absl::StrCat("/dev/fd/", fd), path("link"));
  EXPECT_TRUE(write(absl::StrCat("/dev/fd/", fd), "one ").ok());
  EXPECT_TRUE(write(absl::StrCat("/proc/self/fd/", fd), "two ").ok());
  EXPECT_TRUE(write(path("link"), "three ").ok());
  ASSERT_EQ(::write(fd, "after", 5), 5);
  ::close(fd);
  EXPECT_EQ(contents(path("a")), "before one two three after");
  EXPECT_FALSE(write(absl::StrCat("/dev/fd/", fd), "x").ok());  // closed by now
}

}  // namespace
}  // namespace emo
