// A search that several processes make together, as seen by who passes their messages on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace tilesmith {

// Bytes are the searches' own. May be called while other threads search.
class Served {
  public:
    static constexpr std::size_t kAnyItems = std::numeric_limits<std::int64_t>::max();

    virtual ~Served() = default;

    // What the first process split, for all; empty as long as it has not.
    virtual std::string begin() = 0;
    virtual void begin(std::string_view split) = 0;
    // What the search is split into; `kAnyItems` where that shows as it goes, and each process sees for itself when it ends.
    virtual std::size_t items() = 0;
    virtual void offer(std::size_t item) = 0;
    // Some of the work here, for another process; empty where there is none just now.
    virtual std::string give() { return {}; }
    virtual void receive(std::string_view) {}
    // Items that no worker has taken; and what waits for another process.
    virtual std::size_t waiting() = 0;
    virtual std::size_t parked() const { return 0; }
    // Whether all workers wait for an item, and there is none.
    virtual bool idle() { return false; }
    virtual void end() = 0;
    // What all others have to know, made here since the last call.
    virtual std::string fresh() { return {}; }
    virtual void learn(std::string_view) {}
    // What this process waits for, by the process that makes it; and what others ask of this one.
    virtual std::vector<std::string> wanted() { return {}; }
    virtual void ask(std::string_view) {}
    // For the first process: what was found here and not told before, work by work: what is finished, or after the search
    // all.
    virtual std::string found(bool) { return {}; }
};

} // namespace tilesmith
