// TLS over a pair of sockets: what a connection waits for when its other end asks and does not
// read.
#include "src/daemon/connection.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>

namespace divvy::daemon {
namespace {

template <typename T, void (*Free)(T*)>
struct Freed {
  void operator()(T* what) const { Free(what); }
};
using Key = std::unique_ptr<EVP_PKEY, Freed<EVP_PKEY, ::EVP_PKEY_free>>;
using Certificate = std::unique_ptr<X509, Freed<X509, ::X509_free>>;
using Context = std::unique_ptr<SSL_CTX, Freed<SSL_CTX, ::SSL_CTX_free>>;
using Client = std::unique_ptr<SSL, Freed<SSL, ::SSL_free>>;
using File = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;

class TlsTest : public ::testing::Test {
 protected:
  TlsTest() {
    char text[] = "/tmp/divvy-tls-XXXXXX";
    dir_ = ::mkdtemp(text);
    MakeCertificate();
    auto made = TlsContext::Make({.certificate = dir_ + "/cert", .key = dir_ + "/key"});
    EXPECT_TRUE(made.ok()) << made.error().message;
    context_ = std::move(*made);
    int fds[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
    const int small = 1;  // the kernel's least
    ::setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    server_ = Connection(UniqueFd(fds[0]), context_->get());
    client_fd_ = UniqueFd(fds[1]);
    client_context_.reset(::SSL_CTX_new(::TLS_client_method()));
    client_.reset(::SSL_new(client_context_.get()));
    ::SSL_set_fd(client_.get(), client_fd_.get());
  }
  ~TlsTest() override { std::filesystem::remove_all(dir_); }

  void MakeCertificate() {
    const Key key(::EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "P-256"));
    const Certificate cert(::X509_new());
    ::X509_gmtime_adj(X509_getm_notBefore(cert.get()), 0);
    ::X509_gmtime_adj(X509_getm_notAfter(cert.get()), 3600);
    ::X509_set_pubkey(cert.get(), key.get());
    ::X509_sign(cert.get(), key.get(), ::EVP_sha256());
    const File to_cert(std::fopen((dir_ + "/cert").c_str(), "w"), std::fclose);
    const File to_key(std::fopen((dir_ + "/key").c_str(), "w"), std::fclose);
    ::PEM_write_X509(to_cert.get(), cert.get());
    ::PEM_write_PrivateKey(to_key.get(), key.get(), nullptr, nullptr, 0, nullptr, nullptr);
  }

  // Each in turn, until both are done.
  bool Shake() {
    for (int turn = 0; turn < 100; ++turn) {
      ::SSL_connect(client_.get());
      short events;
      if (server_.Handshake(events) == 1 && ::SSL_is_init_finished(client_.get())) return true;
    }
    return false;
  }

  bool Ready(short events) const {
    pollfd fd{server_.fd(), events, 0};
    return ::poll(&fd, 1, 0) == 1;
  }

  std::string dir_;
  std::unique_ptr<TlsContext> context_;
  Connection server_;
  UniqueFd client_fd_;
  Context client_context_;
  Client client_;
};

TEST_F(TlsTest, WhatHasToBeWrittenBeforeMoreIsReadIsWaitedFor) {
  ASSERT_TRUE(Shake());
  char byte;
  // It asks for new keys and reads none of the answers.
  for (int asked = 0; server_.to_receive() == POLLIN; ++asked) {
    ASSERT_LT(asked, 100'000);
    ASSERT_EQ(::SSL_key_update(client_.get(), SSL_KEY_UPDATE_REQUESTED), 1);
    ASSERT_EQ(::SSL_do_handshake(client_.get()), 1);
    ASSERT_EQ(server_.Receive(&byte, 1), -1);
    ASSERT_EQ(errno, EAGAIN);
  }
  ASSERT_EQ(::SSL_write(client_.get(), "x", 1), 1);
  EXPECT_EQ(server_.to_receive(), POLLOUT);
  EXPECT_TRUE(Ready(POLLIN));  // who polled for this would be told to come again without end
  EXPECT_FALSE(Ready(POLLOUT));
  EXPECT_EQ(server_.Receive(&byte, 1), -1);
  EXPECT_EQ(errno, EAGAIN);
  EXPECT_EQ(server_.to_receive(), POLLOUT);
  // Once the other end reads, all goes on.
  char rest;
  EXPECT_EQ(::SSL_read(client_.get(), &rest, 1), -1);
  EXPECT_TRUE(Ready(POLLOUT));
  ASSERT_EQ(server_.Receive(&byte, 1), 1);
  EXPECT_EQ(byte, 'x');
  EXPECT_EQ(server_.to_receive(), POLLIN);
}

}  // namespace
}  // namespace divvy::daemon
