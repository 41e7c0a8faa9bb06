// Locks and atomics of what workers share. Built for one thread there are none: what the parallel code is measured against.
#pragma once

#include <atomic>
#include <mutex>

namespace tilesmith {

#ifdef TILESMITH_SERIAL
struct Mutex {
    void lock() {}
    void unlock() {}
};

template <typename Value> class Atomic {
  public:
    constexpr Atomic(Value value = {}) : value_(value) {}
    Value load(std::memory_order = {}) const { return value_; }
    void store(Value value, std::memory_order = {}) { value_ = value; }
    operator Value() const { return value_; }
    Value operator=(Value value) { return value_ = value; }
    Value operator++() { return ++value_; }
    Value operator--() { return --value_; }
    Value operator+=(Value more) { return value_ += more; }
    Value operator-=(Value less) { return value_ -= less; }
    // Nobody else is there to wait for.
    void wait(Value, std::memory_order = {}) const {}
    void notify_all() {}

  private:
    Value value_;
};
#else
using Mutex = std::mutex;
template <typename Value> using Atomic = std::atomic<Value>;
#endif

} // namespace tilesmith
