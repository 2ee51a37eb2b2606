// Server: the broker's socket. Says hello to clients, hands out the machine page, channels and
// arenas, sees clients end (pidfd, end of connection) and gives their memory back after the
// teardown delay. One thread.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "src/base/result.h"
#include "src/base/unique_fd.h"
#include "src/sim/broker/machine.h"
#include "src/sim/broker/shares.h"
#include "src/sim/broker/timeline.h"
#include "src/sim/wire/protocol.h"

namespace divvy::sim {

struct ServerOptions {
  std::string dir;
  uint64_t teardown_delay_ns = 300'000'000;
  uint64_t linger_ns = 2'000'000'000;  // stay this long after the last client; UINT64_MAX: for ever
  int starter_pid = 0;                 // stay while this process lives; 0: nobody's
};

class Server {
 public:
  Server(const ServerOptions& options, Machine* machine, Timeline* timeline);

  Status Listen();
  // Until the last client and the starter are gone for the linger time, or `stop_fd` is readable.
  Status Run(int stop_fd);

 private:
  struct Client {
    int id = 0;
    UniqueFd sock, pidfd;
    ClientKind kind = ClientKind::kNvml;
    bool greeted = false;
    bool bye = false;
    uint32_t row = 0;
    std::map<uint32_t, std::shared_ptr<UniqueFd>> arena;  // by device
  };
  struct Leaving {
    uint32_t row;
    uint64_t at_ns;
  };

  void Accept();
  void Serve(Client* c);
  Status Answer(Client* c, const Request& q);
  Status Greet(Client* c, const Request& q);
  void End(Client* c, bool process_gone);
  void Release(uint32_t row);
  void ReleaseDue(uint64_t now);
  Result<std::shared_ptr<UniqueFd>> ArenaOf(Client* c, uint32_t device);
  void Watch(int fd, uint64_t tag);

  ServerOptions options_;
  Machine* machine_;
  Timeline* timeline_;
  SharedMemory shared_;
  UniqueFd listen_, epoll_, starter_;
  bool starter_gone_ = false;
  int next_id_ = 1;
  std::map<int, std::unique_ptr<Client>> clients_;
  std::vector<Leaving> leaving_;
};

}  // namespace divvy::sim
