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

struct Times {
    std::array<double, kActivities> seconds{}; // by activity
    std::vector<Span> spans;                   // where a timeline is kept

    double of(Activity activity) const { return seconds[static_cast<std::size_t>(activity)]; }
    void operator+=(const Times &other) {
        for (std::size_t i = 0; i < kActivities; ++i) seconds[i] += other.seconds[i];
        spans.insert(spans.end(), other.spans.begin(), other.spans.end());
    }
};

// Looks at the clock where the activity changes, and only there.
class Track {
  public:
    Track(const Control &control, bool kept) : control_(control), kept_(kept), since_s_(control.elapsed()) {}

    // Returns what it was before.
    Activity to(Activity activity) {
        if (activity != activity_) flush();
        return std::exchange(activity_, activity);
    }

    // When it last changed.
    double since_s() const { return since_s_; }
    // What was done since the beginning, or since this was last asked.
    Times take() {
        flush();
        return std::exchange(times_, {});
    }

  private:
    // A viewer shows no more, and memory has an end.
    static constexpr std::size_t kMostSpans = 1 << 20;

    void flush() {
        const double now_s = control_.elapsed();
        times_.seconds[static_cast<std::size_t>(activity_)] += now_s - since_s_;
        if (kept_ && times_.spans.size() < kMostSpans) times_.spans.push_back({activity_, since_s_, now_s});
        since_s_ = now_s;
    }

    const Control &control_;
    bool kept_;
    Activity activity_ = Activity::waiting;
    double since_s_;
    Times times_;
};

} // namespace tilesmith
