// The library's own threads. See thread_pool.h.
// The pool uses pthreads directly, in the old symbol versions that glue/glibc.cc chooses. std::condition_variable and
// std::thread would bring more code of the C++ runtime into the library than the pool itself has.
#include "thread_pool.h"

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <cstdlib>

namespace lowlevel_simclr {
namespace {

constexpr int64_t kMostThreads = 1024;

// One call of run(). The Job lies on the caller's stack. The pool keeps it in a list until the caller finds no more
// work in it.
struct Job {
  int64_t count;
  ParallelBody body;
  void* argument;
  std::atomic<int64_t> next{0};
  int64_t helpers = 0;  // pool threads that work on this job; the pool's mutex guards it
  Job* following = nullptr;

  bool exhausted() const { return next.load(std::memory_order_relaxed) >= count; }

  void work() {
    for (int64_t index; (index = next.fetch_add(1, std::memory_order_relaxed)) < count;)
      body(argument, index);
  }
};

class ThreadPool {
 public:
  explicit ThreadPool(int64_t threads) : threads_(threads) {
    for (int64_t i = 1; i < threads; ++i) start_thread();
  }

  int64_t threads() const { return threads_; }

  void run(int64_t count, ParallelBody body, void* argument) {
    Job job{count, body, argument};
    if (count > 1 && threads_ > 1) publish(&job);
    job.work();
    if (count > 1 && threads_ > 1) withdraw(&job);
  }

 private:
  void start_thread() {
    pthread_t thread;
    const auto body = [](void* pool) -> void* { static_cast<ThreadPool*>(pool)->serve(); };
    if (pthread_create(&thread, nullptr, body, this) == 0) pthread_detach(thread);
  }

  void publish(Job* job) {
    pthread_mutex_lock(&mutex_);
    job->following = jobs_;
    jobs_ = job;
    const int64_t wanted = job->count - 1;
    for (int64_t i = 0; i < wanted && i < threads_ - 1; ++i) pthread_cond_signal(&work_);
    pthread_mutex_unlock(&mutex_);
  }

  void withdraw(Job* job) {
    pthread_mutex_lock(&mutex_);
    Job** link = &jobs_;
    while (*link != job) link = &(*link)->following;
    *link = job->following;
    while (job->helpers > 0) pthread_cond_wait(&done_, &mutex_);
    pthread_mutex_unlock(&mutex_);
  }

  Job* open_job() {
    for (Job* job = jobs_; job != nullptr; job = job->following) {
      if (!job->exhausted()) return job;
    }
    return nullptr;
  }

  [[noreturn]] void serve() {
    pthread_mutex_lock(&mutex_);
    for (;;) {
      Job* job = open_job();
      if (job == nullptr) {
        pthread_cond_wait(&work_, &mutex_);
        continue;
      }
      ++job->helpers;
      pthread_mutex_unlock(&mutex_);
      job->work();
      pthread_mutex_lock(&mutex_);
      if (--job->helpers == 0) pthread_cond_broadcast(&done_);
    }
  }

  const int64_t threads_;
  pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t work_ = PTHREAD_COND_INITIALIZER;
  pthread_cond_t done_ = PTHREAD_COND_INITIALIZER;
  Job* jobs_ = nullptr;
};

int64_t wanted_threads() {
  const char* text = std::getenv("LOWLEVEL_SIMCLR_THREADS");
  const int64_t asked = text == nullptr ? 0 : std::atoll(text);
  if (asked > 0) return asked < kMostThreads ? asked : kMostThreads;
  cpu_set_t mask;
  return sched_getaffinity(0, sizeof mask, &mask) == 0 ? CPU_COUNT(&mask) : 1;
}

std::atomic<ThreadPool*> shared_pool{nullptr};

// The pool is never destroyed, because its threads may still run after all static destructors. After a fork, the child
// process drops the pool of its parent without using it: a thread that does not exist in the child may hold the pool's
// mutex.
ThreadPool* make_shared_pool() {
  static const int registered =
      pthread_atfork(nullptr, nullptr, [] { shared_pool.store(nullptr, std::memory_order_release); });
  (void)registered;
  static std::atomic_flag building = ATOMIC_FLAG_INIT;
  while (building.test_and_set(std::memory_order_acquire)) sched_yield();
  ThreadPool* pool = shared_pool.load(std::memory_order_acquire);
  if (pool == nullptr) {
    pool = new ThreadPool(wanted_threads());
    shared_pool.store(pool, std::memory_order_release);
  }
  building.clear(std::memory_order_release);
  return pool;
}

void run_on_pool(void* pool, int64_t count, ParallelBody body, void* argument) {
  static_cast<ThreadPool*>(pool)->run(count, body, argument);
}

}  // namespace

ParallelFor shared_thread_pool() {
  ThreadPool* pool = shared_pool.load(std::memory_order_acquire);
  if (pool == nullptr) pool = make_shared_pool();
  return {pool, pool->threads(), run_on_pool};
}

}  // namespace lowlevel_simclr
