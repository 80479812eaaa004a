#include "train/model_folder/tensor_copy.h"

#include <ATen/ATen.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

namespace emo {
namespace {

absl::string_view bytes_of(const at::Tensor& tensor) {
  return {static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes()};
}

// So that it is read from the disk, where it lies on one.
void leave_cache(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY);
  ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  ::close(fd);
}

// Tensors of several pieces: as they are, in other types, with fewer rows and with more.
TEST(TensorCopy, LargeTensorsInOtherTypesAndSizes) {
  const std::string folder = ::testing::TempDir() + "/emo_tensor_copy_test";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  at::manual_seed(3);
  const at::Tensor f32 = at::randn({4100, 1031});                     // 16.9 MB
  const at::Tensor bf16 = at::randn({9001, 1999}).to(at::kBFloat16);  // 36.0 MB
  const at::Tensor f16 = at::randn({4500, 2000}).to(at::kHalf);       // 18.0 MB
  const std::vector<NamedTensor> source = {{"f32", "F32", {4100, 1031}, bytes_of(f32)},
                                           {"bf16", "BF16", {9001, 1999}, bytes_of(bf16)},
                                           {"f16", "F16", {4500, 2000}, bytes_of(f16)}};
  ASSERT_TRUE(
      write_safetensors(posix_file_system(), folder, "source.safetensors", source, {}).ok());
  leave_cache(folder + "/source.safetensors");
  const auto from = TensorFolder::open_file(folder + "/source.safetensors");
  ASSERT_TRUE(from.ok()) << from.status();
  const auto rows = [](const at::Tensor& tensor, int64_t count) {
    at::Tensor result = at::zeros({count, tensor.size(1)}, tensor.options());
    const int64_t kept = std::min(count, tensor.size(0));
    result.slice(0, 0, kept).copy_(tensor.slice(0, 0, kept));
    return result;
  };
  const std::vector<std::pair<TensorCopy, at::Tensor>> cases = {
      {{"same", "F32", {4100, 1031}, from->find("f32")}, f32},
      {{"narrowed", "BF16", {4100, 1031}, from->find("f32")}, f32.to(at::kBFloat16)},
      {{"widened", "F32", {9001, 1999}, from->find("bf16")}, bf16.to(at::kFloat)},
      {{"widened_half", "F32", {4500, 2000}, from->find("f16")}, f16.to(at::kFloat)},
      {{"half", "BF16", {4500, 2000}, from->find("f16")}, f16.to(at::kFloat).to(at::kBFloat16)},
      {{"more", "BF16", {9100, 1999}, from->find("bf16")}, rows(bf16, 9100)},
      {{"more_widened", "F32", {9100, 1999}, from->find("bf16")}, rows(bf16, 9100).to(at::kFloat)},
      {{"fewer", "F32", {17, 1031}, from->find("f32")}, rows(f32, 17)}};
  std::vector<TensorCopy> copies;
  for (const auto& [copy, expected] : cases) copies.push_back(copy);
  for (const uint64_t shard : {uint64_t{1} << 40, uint64_t{50'000'000}}) {
    const std::string to = folder + "/to-" + std::to_string(shard);
    std::filesystem::create_directories(to);
    uint64_t last = 0;
    const auto files =
        write_copies(posix_file_system(), to, copies, shard, [&](uint64_t bytes) { last = bytes; });
    ASSERT_TRUE(files.ok()) << files.status();
    EXPECT_EQ(last, emo::bytes_of(copies));
    EXPECT_EQ(files->size() > 1, shard < last);
    const auto written = TensorFolder::open(to, "model");
    ASSERT_TRUE(written.ok()) << written.status();
    EXPECT_EQ(written->tensors().size(), cases.size());
    for (const auto& [copy, expected] : cases) {
      const TensorRecord* record = written->find(copy.name);
      ASSERT_NE(record, nullptr) << copy.name;
      EXPECT_EQ(record->dtype, copy.dtype) << copy.name;
      EXPECT_EQ(record->shape, copy.shape) << copy.name;
      EXPECT_TRUE(record->bytes == bytes_of(expected)) << copy.name;
    }
  }
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace emo
