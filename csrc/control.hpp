// When a search has to stop. Asked every few thousand states, so that asking costs nothing.
#pragma once

#include <time.h>

#include <atomic>
#include <chrono>
#include <cstdint>

namespace tilesmith {

enum class Stop : std::uint8_t { exhausted, seconds, graphs, interrupted, incomplete };

// Of this thread's processor time.
inline double cpu_seconds() {
    timespec now{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

class Control {
  public:
    using Clock = std::chrono::steady_clock;

    // Without a limit `seconds` is 0 or less.
    explicit Control(double seconds = 0)
        : start_(Clock::now()), seconds_(seconds > 0 ? seconds : 1e18) {}

    // From any thread, or from a signal handler.
    void interrupt() { ask(Stop::interrupted); }
    void ask(Stop reason) {
        Stop running = Stop::exhausted;
        stop_.compare_exchange_strong(running, reason, std::memory_order_relaxed);
    }

    bool stopped() const { return stop_.load(std::memory_order_relaxed) != Stop::exhausted; }
    // Looks at the clock too.
    bool poll() {
        if (!stopped() && elapsed() > seconds_) ask(Stop::seconds);
        return stopped();
    }
    Stop reason() const { return stop_.load(std::memory_order_relaxed); }
    double elapsed() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

  private:
    static_assert(std::atomic<Stop>::is_always_lock_free);
    alignas(64) std::atomic<Stop> stop_{Stop::exhausted};
    Clock::time_point start_;
    double seconds_;
};

} // namespace tilesmith
