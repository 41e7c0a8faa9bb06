// What a worker does, and since when.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "control.hpp"

namespace tilesmith {

enum class Activity : std::uint8_t { busy, waiting, stealing, oracle };
inline constexpr std::size_t kActivities = 4;

// Seconds are those since the search began.
struct Span {
    Activity activity = Activity::busy;
    double start_s = 0, end_s = 0;
};

class Track {
  public:
    Track(const Control &control, bool kept) : control_(control), kept_(kept), since_s_(control.elapsed()) {}

    // Returns what it was before.
    Activity to(Activity activity) {
        const double now_s = control_.elapsed();
        sums_[static_cast<std::size_t>(activity_)] += now_s - since_s_;
        if (kept_ && spans_.size() < kMostSpans) spans_.push_back({activity_, since_s_, now_s});
        since_s_ = now_s;
        return std::exchange(activity_, activity);
    }

    double seconds(Activity activity) const { return sums_[static_cast<std::size_t>(activity)]; }
    std::vector<Span> take() { return std::move(spans_); }

  private:
    // A viewer shows no more, and memory has an end.
    static constexpr std::size_t kMostSpans = 1 << 20;

    const Control &control_;
    bool kept_;
    Activity activity_ = Activity::waiting;
    double since_s_;
    std::array<double, kActivities> sums_{};
    std::vector<Span> spans_;
};

} // namespace tilesmith
