#include "parallel/thread_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace emo {
namespace {

using ::testing::StrEq;
using ::testing::ThrowsMessage;

TEST(ThreadPool, DoesEveryTaskOnceAndShowsWhatItWrote) {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    ASSERT_EQ(pool.size(), threads);
    std::vector<int64_t> done(997);
    int64_t expected = 0;
    for (const int64_t n : {0, 1, 2, 7, 997}) {
      for (int round = 0; round < 50; ++round) {  // back to back: late threads meet newer jobs
        pool.run(n, [&](int64_t i) { done[i] += i + 1; });
        expected += n * (n + 1) / 2;
      }
      ASSERT_EQ(std::accumulate(done.begin(), done.end(), int64_t{0}), expected) << n;
    }
    for (int64_t i = 7; i < 997; ++i) ASSERT_EQ(done[i], 50 * (i + 1));
  }
}

TEST(ThreadPool, WakesThreadsThatSleep) {
  ThreadPool pool(4);
  std::vector<int> done(64);
  for (int round = 1; round <= 5; ++round) {
    std::this_thread::sleep_for(10 * ThreadPool::kSpin);
    pool.run(64, [&](int64_t i) { ++done[i]; });
    EXPECT_EQ(done, std::vector<int>(64, round));
  }
}

TEST(ThreadPool, GivesEachTaskAThreadOfTheTeam) {
  ThreadPool pool(3);
  EXPECT_EQ(ThreadPool::thread_index(), 0);
  EXPECT_FALSE(ThreadPool::inside_task());
  std::vector<int> index(200, -1), inside(200);
  pool.run(200, [&](int64_t i) {
    index[i] = ThreadPool::thread_index();
    inside[i] = ThreadPool::inside_task() ? 1 : 0;
  });
  for (const int i : index) EXPECT_TRUE(i >= 0 && i < 3) << i;
  EXPECT_EQ(inside, std::vector<int>(200, 1));
  EXPECT_FALSE(ThreadPool::inside_task());
}

TEST(ThreadPool, TasksInsideTasksRunInOrderOnTheirThread) {
  ThreadPool pool(3);
  std::vector<std::vector<int64_t>> order(20);
  pool.run(20, [&](int64_t i) {
    const int thread = ThreadPool::thread_index();
    pool.run(5, [&](int64_t j) {
      EXPECT_EQ(ThreadPool::thread_index(), thread);
      order[i].push_back(j);
    });
    EXPECT_TRUE(ThreadPool::inside_task());
  });
  for (const auto& inner : order) EXPECT_EQ(inner, (std::vector<int64_t>{0, 1, 2, 3, 4}));
}

TEST(ThreadPool, AnExceptionReachesTheCallerAfterTheOtherTasks) {
  for (const int threads : {1, 4}) {
    ThreadPool pool(threads);
    std::vector<int> done(100);
    const auto task = [&](int64_t i) {
      if (i == 40) throw std::runtime_error("task 40");
      done[i] = 1;
    };
    EXPECT_THAT([&] { pool.run(100, task); }, ThrowsMessage<std::runtime_error>(StrEq("task 40")));
    EXPECT_EQ(std::accumulate(done.begin(), done.end(), 0), 99);
    EXPECT_FALSE(ThreadPool::inside_task());
    pool.run(40, task);  // the pool still works
  }
}

TEST(Trace, HasASpanForEachThreadAndJobThatItWorkedFor) {
  ThreadPool pool(3);
  std::vector<double> done(300);
  const auto work = [&](int64_t i) {
    for (int n = 0; n < 2000; ++n) done[i] += 1.0 / (n + 1);
  };
  for (int round = 0; round < 20; ++round) {  // a new trace each time: nothing of the last is left
    Trace trace(pool.size());
    const auto start = Trace::Clock::now();
    trace.set_name("first");
    pool.set_trace(&trace);
    pool.run(300, work);
    trace.set_name("second");
    pool.run(300, work);
    pool.set_trace(nullptr);
    pool.run(300, work);
    const std::string events = trace.to_events(7, start);
    size_t spans = 0;
    for (size_t at = events.find("\"ph\""); at != std::string::npos;
         at = events.find("\"ph\"", at + 1)) {
      ++spans;
    }
    EXPECT_LE(spans, 4u) << events;  // two workers, two jobs
    EXPECT_EQ(events.find("\"tid\": 0"), std::string::npos) << "the caller adds its own";
    EXPECT_EQ(events.find("\"pid\": 7") == std::string::npos, spans == 0);
  }
}

}  // namespace
}  // namespace emo
