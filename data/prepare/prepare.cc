#include "data/prepare/prepare.h"

#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "data/documents/task_file.h"
#include "data/documents/task_prompt.h"
#include "data/files/file_system.h"
#include "data/program/progress.h"
#include "data/program/thread_count.h"
#include "data/shards/shard_writer.h"
#include "data/tokenizer/tokenizer.h"

namespace emo {
namespace {

constexpr size_t kJobBytes = 1 << 20;  // raw text handed to a thread at once

struct Encoded {
  std::vector<int32_t> tokens;
  uint64_t bytes = 0;
  std::string source, id;
};

// A run of documents on its way through: raw, then encoded. Written in order of `number`.
struct Job {
  int64_t number = 0;
  std::vector<RawDocument> raw;
  std::vector<Encoded> encoded;
  std::vector<absl::Status> bad;  // documents that are not as they should be
  absl::Status failed;            // OK, or why a right one could not be encoded
};

// The hand-over between one reader, several encoding threads and one writer. At most `limit` jobs
// are under way, which bounds memory.
class JobQueue {
 public:
  explicit JobQueue(int64_t limit) : limit_(limit) {}

  bool has_room() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return under_way_ < limit_;
  }
  void push(Job job) {
    const std::lock_guard<std::mutex> lock(mutex_);
    ++under_way_;
    waiting_.emplace(job.number, std::move(job));
    changed_.notify_all();
  }
  // The next raw job; false when there will be none.
  bool take(Job* job) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return !waiting_.empty() || closed_; });
    if (waiting_.empty()) return false;
    *job = std::move(waiting_.extract(waiting_.begin()).mapped());
    return true;
  }
  void done(Job job) {
    const std::lock_guard<std::mutex> lock(mutex_);
    done_.emplace(job.number, std::move(job));
    changed_.notify_all();
  }
  // Waits for the encoded job `number`.
  Job collect(int64_t number) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return done_.contains(number); });
    --under_way_;
    return std::move(done_.extract(number).mapped());
  }
  void close() {
    const std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
    waiting_.clear();
    changed_.notify_all();
  }

 private:
  const int64_t limit_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<int64_t, Job> waiting_, done_;
  int64_t under_way_ = 0;
  bool closed_ = false;
};

void encode(const Tokenizer& tokenizer, int32_t eos, const DocumentFields& fields, Job* job,
            Tokenizer::Cache* cache) {
  for (const RawDocument& raw : job->raw) {
    absl::StatusOr<Document> document = parse_document(raw, fields);
    if (!document.ok()) {
      job->bad.push_back(document.status());
      continue;
    }
    Encoded encoded{{}, document->text.size(), document->source, document->id};
    // Its text is valid, so that this fails by a limit of ours only.
    absl::Status status = tokenizer.encode(document->text, &encoded.tokens, cache);
    if (!status.ok()) {
      job->failed = absl::DataLossError(
          absl::StrCat(place_of(raw), ", document '", document->id, "': ", status.message()));
      break;
    }
    encoded.tokens.push_back(eos);
    job->encoded.push_back(std::move(encoded));
  }
  job->raw.clear();
}

void count(const std::string& source, int64_t tokens, int64_t bytes, PrepareSummary* summary) {
  for (PrepareSummary::Source* sum : {&summary->sources[source], &summary->total}) {
    sum->documents += 1;
    sum->tokens += tokens;
    sum->bytes += bytes;
  }
}

absl::Status write(const Job& job, bool strict, ShardWriter* writer, PrepareSummary* summary) {
  if (!job.failed.ok()) return job.failed;
  for (const absl::Status& bad : job.bad) {
    if (strict) return bad;
    ++summary->skipped;
    if (summary->first_warnings.size() < 10) {
      summary->first_warnings.emplace_back(bad.message());
    }
  }
  for (const Encoded& document : job.encoded) {
    absl::Status status =
        writer->append(document.tokens, document.bytes, document.source, document.id);
    if (!status.ok()) return status;
    count(document.source, static_cast<int64_t>(document.tokens.size()),
          static_cast<int64_t>(document.bytes), summary);
  }
  return absl::OkStatus();
}

// Reads, and writes what has been encoded, on the calling thread.
absl::Status pump(DocumentReader* reader, const PrepareOptions& options, JobQueue* queue,
                  ShardWriter* writer, PrepareSummary* summary) {
  Progress progress("prepare", reader->bytes_total(), "bytes", options.show_progress);
  int64_t read = 0;
  int64_t written = 0;
  bool more = true;
  while (more || written < read) {
    if (more && queue->has_room()) {
      Job job;
      job.number = read;
      for (size_t bytes = 0; more && bytes < kJobBytes;) {
        RawDocument raw;
        absl::StatusOr<bool> found = reader->next(&raw);
        if (!found.ok()) return found.status();
        more = *found;
        bytes += raw.bytes.size();
        if (more) job.raw.push_back(std::move(raw));
      }
      if (!job.raw.empty()) queue->push(std::move(job)), ++read;
      continue;
    }
    absl::Status status = write(queue->collect(written++), options.strict, writer, summary);
    if (!status.ok()) return status;
    const bool last = !more && written == read;
    progress.update(
        last ? reader->bytes_total() : std::min(reader->bytes_read(), reader->bytes_total() - 1),
        absl::StrCat(summary->total.documents, " documents"));
  }
  return absl::OkStatus();
}

absl::Status check_output(const std::string& folder) {
  if (!path_exists(folder)) return absl::OkStatus();
  absl::StatusOr<std::vector<std::string>> names = list_directory(folder);
  if (!names.ok()) return names.status();
  if (names->empty()) return absl::OkStatus();
  return absl::AlreadyExistsError(folder + ": the folder is not empty; remove it or name another");
}

// Documents on several threads.
absl::Status encode_documents(const Tokenizer& tokenizer, int32_t eos,
                              const PrepareOptions& options, ShardWriter* writer,
                              PrepareSummary* summary) {
  absl::StatusOr<DocumentReader> reader = DocumentReader::open(options.inputs);
  if (!reader.ok()) return reader.status();
  const int threads = thread_count(options.threads);
  JobQueue queue(4 * threads);
  std::vector<std::thread> workers;
  for (int i = 0; i < threads; ++i) {
    workers.emplace_back([&] {
      Tokenizer::Cache cache;
      Job job;
      while (queue.take(&job)) {
        encode(tokenizer, eos, options.fields, &job, &cache);
        queue.done(std::move(job));
        job = Job();
      }
    });
  }
  const absl::Status status = pump(&*reader, options, &queue, writer, summary);
  queue.close();
  for (std::thread& worker : workers) worker.join();
  return status;
}

// The questions of tasks, each a document: examples, question and answer.
absl::Status encode_tasks(const Tokenizer& tokenizer, int32_t eos, const PrepareOptions& options,
                          ShardWriter* writer, PrepareSummary* summary) {
  absl::StatusOr<std::vector<Task>> tasks = read_tasks(options.inputs);
  if (!tasks.ok()) return tasks.status();
  Tokenizer::Cache cache;
  for (const Task& task : *tasks) {
    const std::string& source = options.fields.source.empty() ? task.name : options.fields.source;
    for (const TaskItem& item : task.items) {
      if (item.split != options.split) continue;
      absl::StatusOr<std::string> prompt =
          prompt_of(task, item, options.shots.value_or(task.shots));
      if (!prompt.ok()) return prompt.status();
      const std::string answer = task.separator + item.answer();
      absl::StatusOr<AnsweredTokens> both = tokenize_answer(tokenizer, *prompt, answer, &cache);
      if (!both.ok()) return both.status();
      both->tokens.push_back(eos);
      const uint64_t bytes = answer.size() + (task.loss_on_answer ? 0 : prompt->size());
      absl::Status status =
          writer->append(both->tokens, bytes, source, task.name + "/" + item.id,
                         task.loss_on_answer ? static_cast<uint32_t>(both->context) : 0);
      if (!status.ok()) return status;
      count(source, static_cast<int64_t>(both->tokens.size()), static_cast<int64_t>(bytes),
            summary);
    }
  }
  if (summary->total.documents > 0) return absl::OkStatus();
  return absl::InvalidArgumentError("no question of the split '" + options.split + "'");
}

}  // namespace

absl::StatusOr<PrepareSummary> prepare(const PrepareOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  absl::StatusOr<std::string> tokenizer_text = read_file(options.tokenizer, 1u << 28);
  if (!tokenizer_text.ok()) return tokenizer_text.status();
  absl::StatusOr<Tokenizer> tokenizer = Tokenizer::from_file(options.tokenizer);
  if (!tokenizer.ok()) return tokenizer.status();
  absl::StatusOr<TokenizerIdentity> identity =
      identify_tokenizer(*tokenizer_text, options.tokenizer);
  if (!identity.ok()) return identity.status();
  absl::StatusOr<int32_t> eos = tokenizer->eos_id(options.eos);
  if (!eos.ok()) return eos.status();
  absl::Status status = check_output(options.output);
  FileSystem& fs = posix_file_system();
  if (status.ok()) status = fs.make_directories(options.output);
  if (!status.ok()) return status;

  DatasetInfo info;
  info.vocab_size = tokenizer->vocab_size();
  info.eos_id = *eos;
  info.tokenizer = *std::move(identity);
  ShardWriter writer(fs, options.output, info, options.tokens_per_shard, options.with_ids);

  PrepareSummary summary;
  status = options.tasks ? encode_tasks(*tokenizer, *eos, options, &writer, &summary)
                         : encode_documents(*tokenizer, *eos, options, &writer, &summary);
  if (status.ok() && summary.total.documents == 0) {
    const std::string why = summary.first_warnings.empty() ? "" : ": " + summary.first_warnings[0];
    status = absl::DataLossError("no usable document in the input" + why);
  }
  if (status.ok()) {
    status = write_file_durably(fs, options.output + "/tokenizer.json", *tokenizer_text);
  }
  if (!status.ok()) {
    // What this run made goes again, so that the corrected command finds the folder empty.
    fs.remove_all(options.output).IgnoreError();
    return status;
  }
  absl::StatusOr<DatasetInfo> written = writer.finish();
  if (!written.ok()) return written.status();
  summary.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return summary;
}

}  // namespace emo
