// One search from a program to ranked, scheduled µGraphs.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "derive.hpp"
#include "kernels.hpp"
#include "ledger.hpp"

namespace tilesmith {

struct Request {
    Program program;
    Sizes sizes;
    Device device;
    TableLimits table;
    SpaceOptions space;
    KernelLimits kernels;
    bool closure = false;         // any number of kernels; the cheapest derivations instead of a listing
    Team team;
    double seconds = 0;           // 0: no limit
    std::size_t keep = 32;        // how many graphs are ranked and returned
    std::vector<std::int64_t> splits{2, 4, 8, 16, 32, 64};
};

struct Result {
    Stop stop = Stop::exhausted;
    std::string incomplete;
    double table_s = 0, search_s = 0, rank_s = 0;
    std::uint64_t graphs = 0;          // found, each implementation counted
    std::uint64_t plans = 0;           // found, apart from implementations
    std::uint64_t implementations = 0; // that plans use
    std::uint64_t unfit = 0;           // of those, for which no schedule fits
    std::uint64_t schedules = 0;       // tried
    std::vector<Derivation> ranked;        // the cheapest first
    std::vector<Worker> workers;
};

// Owns everything that a result points into.
class Engine {
  public:
    explicit Engine(Request request);

    // Once. Other threads may call `control().interrupt()` meanwhile.
    const Result &run();

    // One of several processes: `served` is there once it can take part. What all of them found is told to the first,
    // which then concludes.
    Served *served() { return shown_.load(std::memory_order_acquire); }
    void learn(std::string_view made);
    void tell(std::string_view found);
    // Goes through what was learned, without `run`, as far as it leads.
    void replay();
    // Whether what was told begins with as many graphs as end the search.
    bool told_enough();
    // Ranks what was told. Without `run` an engine may learn and be told too: of a search whose processes are gone.
    const Result &conclude();

    Control &control() { return control_; }
    const Request &request() const { return request_; }
    const Table &table() const { return table_; }
    const Space &space() const { return *space_; }
    const Result &result() const { return result_; }

  private:
    bool open();
    void make();
    void list();
    void rank(const Plans &plans);
    void close();
    void derive();

    bool ran_ = false;
    Request request_;
    Control control_;
    Table table_;
    std::unique_ptr<Space> space_;
    std::unique_ptr<Listing> listing_;
    std::atomic<Served *> shown_{nullptr};
    Ledger ledger_;
    Plans told_;
    std::unique_ptr<Closure> closure_;
    Result result_;
};

} // namespace tilesmith
