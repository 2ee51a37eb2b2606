// User objects (CUDA Driver API, cuUserObjectCreate ... cuGraphReleaseUserObject). See
// user_object.h.
#include "src/sim/client/user_object.h"

#include <pthread.h>
#include <signal.h>

#include <climits>
#include <condition_variable>
#include <deque>
#include <thread>
#include <unordered_set>

#include "src/sim/client/graph.h"
#include "src/sim/client/process.h"
#include "src/sim/generated/driver_functions.h"

namespace divvy::sim {
namespace {

// "Destructor callbacks ... are executed by a shared internal thread". Started by the first job;
// never joined, for calls may come until the process has ended.
class JobThread {
 public:
  static JobThread& Get() {
    static JobThread& t = *new JobThread;
    return t;
  }
  void Add(std::function<void()> job) {
    std::lock_guard lock(mu_);
    jobs_.push_back(std::move(job));
    if (!started_) {
      started_ = true;
      sigset_t all, before;
      sigfillset(&all);
      pthread_sigmask(SIG_SETMASK, &all, &before);  // the program's signals are not for this thread
      std::thread([this] { Loop(); }).detach();
      pthread_sigmask(SIG_SETMASK, &before, nullptr);
    }
    more_.notify_one();
  }

 private:
  void Loop() {
    std::unique_lock lock(mu_);
    for (;;) {
      more_.wait(lock, [this] { return !jobs_.empty(); });
      auto job = std::move(jobs_.front());
      jobs_.pop_front();
      lock.unlock();
      job();
      job = nullptr;
      lock.lock();
    }
  }

  std::mutex mu_;
  std::condition_variable more_;
  std::deque<std::function<void()>> jobs_;
  bool started_ = false;
};

std::unordered_set<UserObject*>& Live() {
  static auto& live = *new std::unordered_set<UserObject*>;
  return live;
}

UserObject* Named(CUuserObject handle) {
  auto* object = reinterpret_cast<UserObject*>(handle);
  return Live().count(object) != 0 ? object : nullptr;
}

bool ValidCount(unsigned count) { return count > 0 && count <= INT_MAX; }

}  // namespace

void RunOnGraphThread(std::function<void()> job) { JobThread::Get().Add(std::move(job)); }

void RetainUserObject(UserObject* object, unsigned count) { object->references += count; }

void ReleaseUserObject(UserObject* object, unsigned count) {
  object->references -= count;
  if (object->references > 0) return;
  Live().erase(object);
  RunOnGraphThread([destroy = object->destroy, data = object->data] { destroy(data); });
  delete object;
}

CUresult sim_cuUserObjectCreate(CUuserObject* object_out, void* ptr, CUhostFn destroy,
                                unsigned int initialRefcount, unsigned int flags) {
  if (CUresult r = Process::Get().Ready()) return r;
  if (object_out == nullptr || destroy == nullptr || !ValidCount(initialRefcount) ||
      flags != CU_USER_OBJECT_NO_DESTRUCTOR_SYNC) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  GraphLock lock(GraphMutex());
  auto* object = new UserObject{ptr, destroy, initialRefcount};
  Live().insert(object);
  *object_out = reinterpret_cast<CUuserObject>(object);
  return CUDA_SUCCESS;
}

CUresult sim_cuUserObjectRetain(CUuserObject handle, unsigned int count) {
  GraphLock lock(GraphMutex());
  UserObject* object = Named(handle);
  if (object == nullptr || !ValidCount(count)) return CUDA_ERROR_INVALID_VALUE;
  RetainUserObject(object, count);
  return CUDA_SUCCESS;
}

CUresult sim_cuUserObjectRelease(CUuserObject handle, unsigned int count) {
  GraphLock lock(GraphMutex());
  UserObject* object = Named(handle);
  if (object == nullptr || !ValidCount(count) || count > object->references) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  ReleaseUserObject(object, count);
  return CUDA_SUCCESS;
}

CUresult sim_cuGraphRetainUserObject(CUgraph graph, CUuserObject handle, unsigned int count,
                                     unsigned int flags) {
  GraphLock lock(GraphMutex());
  Graph* g = Graph::From(graph);
  UserObject* object = Named(handle);
  if (g == nullptr || object == nullptr || !ValidCount(count) ||
      (flags & ~unsigned(CU_GRAPH_USER_OBJECT_MOVE)) != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if ((flags & CU_GRAPH_USER_OBJECT_MOVE) == 0) RetainUserObject(object, count);
  g->user_objects[object] += count;
  return CUDA_SUCCESS;
}

CUresult sim_cuGraphReleaseUserObject(CUgraph graph, CUuserObject handle, unsigned int count) {
  GraphLock lock(GraphMutex());
  Graph* g = Graph::From(graph);
  UserObject* object = Named(handle);
  if (g == nullptr || object == nullptr || !ValidCount(count)) return CUDA_ERROR_INVALID_VALUE;
  auto it = g->user_objects.find(object);
  if (it == g->user_objects.end() || it->second < count) return CUDA_ERROR_INVALID_VALUE;
  if ((it->second -= count) == 0) g->user_objects.erase(it);
  ReleaseUserObject(object, count);
  return CUDA_SUCCESS;
}

}  // namespace divvy::sim
