#include "engine.hpp"

#include <algorithm>
#include <iterator>
#include <map>
#include <stdexcept>

namespace tilesmith {
namespace {

double seconds_since(Control::Clock::time_point start) {
    return std::chrono::duration<double>(Control::Clock::now() - start).count();
}

// One implementation that fits, with its schedule.
struct Option {
    const Implementation *implementation = nullptr;
    Cost cost;
    bool split = false; // whether the number of split parts matters
};

// The implementations of a signature, the cheapest first, for each number of split parts.
using Options = std::vector<std::vector<Option>>;

// The cheapest graphs so far. Ties go to what was found first, which does not depend on workers.
class Best {
  public:
    explicit Best(std::size_t keep) : keep_(keep) {}

    double limit() const { return graphs_.size() < keep_ ? Cost::kNever : graphs_.rbegin()->first.first; }

    void offer(double seconds, Derivation graph) {
        if (seconds >= limit()) return;
        graphs_.emplace(std::pair{seconds, count_++}, std::move(graph));
        if (graphs_.size() > keep_) graphs_.erase(std::prev(graphs_.end()));
    }

    std::vector<Derivation> take() {
        std::vector<Derivation> all;
        for (auto &[key, graph] : graphs_) all.push_back(std::move(graph));
        return all;
    }

  private:
    std::size_t keep_;
    std::uint64_t count_ = 0;
    std::map<std::pair<double, std::uint64_t>, Derivation> graphs_;
};

} // namespace

Engine::Engine(Request request) : request_(std::move(request)), control_(request_.seconds) {
    // Products of names alone would make a split of one part of everything.
    if (request_.splits.empty()) request_.splits.push_back(1);
    request_.table.stopped = [this] { return control_.poll(); };
}

const Result &Engine::run() {
    if (ran_) throw std::logic_error("an engine runs once");
    ran_ = true;
    table_ = build_table(request_.program, request_.table);
    result_.table_s = table_.seconds;
    result_.incomplete = table_.incomplete;
    if (!table_.incomplete.empty()) {
        result_.stop = control_.stopped() ? control_.reason() : Stop::incomplete;
        return result_;
    }
    const auto start = Control::Clock::now();
    space_ = std::make_unique<Space>(request_.program, table_, request_.space);
    try {
        if (request_.closure) close();
        else list();
    } catch (const Overflow &overflow) {
        result_.incomplete = overflow.what();
        control_.ask(Stop::incomplete);
    }
    result_.search_s = seconds_since(start);
    result_.stop = control_.reason();
    const auto ranking = Control::Clock::now();
    if (request_.closure) derive();
    else rank();
    result_.rank_s = seconds_since(ranking);
    return result_;
}

void Engine::list() {
    const auto start = Control::Clock::now();
    listing_ = std::make_unique<Listing>(*space_, request_.kernels, control_);
    listing_->run([&](const Plan &plan) {
        std::uint64_t ways = 1;
        for (const Choice &choice : plan) ways *= choice.chosen().implementations.size();
        result_.graphs += ways;
        ++result_.plans;
        plans_.push_back(plan);
        if (request_.max_graphs && result_.graphs >= request_.max_graphs) control_.ask(Stop::graphs);
    });
    Worker worker;
    worker.counters = listing_->catalogue().counters();
    worker.busy_s = seconds_since(start);
    result_.workers.push_back(worker);
    result_.tensors = listing_->catalogue().tensors();
}

void Engine::close() {
    const ClosureLimits limits{request_.kernels.block, request_.kernels.inputs};
    closure_ = std::make_unique<Closure>(*space_, limits, control_, request_.threads);
    closure_->run();
    for (const Kernels &kernels : closure_->kernels())
        for (const Signature &signature : kernels.signatures) {
            ++result_.plans;
            result_.graphs += signature.implementations.size();
        }
    for (const Closure::Work &work : closure_->workers())
        result_.workers.push_back({work.counters, work.busy_s, work.wait_s, 0});
    result_.tensors = closure_->tensors().size();
    result_.subsets = closure_->counted().subsets;
    result_.searched = closure_->counted().searched;
}

void Engine::derive() {
    Deriver deriver(*space_, *closure_, request_.sizes, request_.device, control_, request_.threads);
    const bool splits = std::ranges::any_of(request_.program.parts, [](std::uint8_t parts) { return parts & kInGrid; });
    for (const std::int64_t split : request_.splits) {
        std::ranges::move(deriver.cheapest(split, request_.keep), std::back_inserter(result_.ranked));
        if (!splits) break;
    }
    std::ranges::stable_sort(result_.ranked, {}, &Derivation::seconds);
    if (result_.ranked.size() > request_.keep) result_.ranked.resize(request_.keep);
    result_.implementations = deriver.counted().implementations;
    result_.unfit = deriver.counted().unfit;
    result_.schedules = deriver.counted().schedules;
}

void Engine::rank() {
    Scheduler scheduler(*space_, request_.sizes, request_.device);
    std::map<const Signature *, Options> known;
    const auto options_of = [&](const Choice &choice) -> const Options & {
        const Signature &signature = choice.chosen();
        const auto found = known.find(&signature);
        if (found != known.end()) return found->second;
        Options options(request_.splits.size());
        for (const Implementation &made : signature.implementations) {
            ++result_.implementations;
            bool fits = false;
            const bool depends = scheduler.depends_on_split(*choice.kernels, made, signature);
            Cost cost;
            for (std::size_t s = 0; s < request_.splits.size(); ++s) {
                if (s == 0 || depends) cost = scheduler.best(*choice.kernels, made, signature, request_.splits[s]);
                if (!cost.fits()) continue;
                fits = true;
                options[s].push_back({&made, cost, depends});
            }
            result_.unfit += !fits;
        }
        for (auto &some : options)
            std::ranges::stable_sort(some, {}, [](const Option &option) { return option.cost.seconds; });
        return known.emplace(&signature, std::move(options)).first->second;
    };

    Best best(request_.keep);
    std::vector<const std::vector<Option> *> choices;
    std::vector<Scheduled> chosen;
    for (const Plan &plan : plans_)
        for (std::size_t s = 0; s < request_.splits.size(); ++s) {
            double least = 0;
            choices.clear();
            for (const Choice &choice : plan) {
                const auto &options = options_of(choice)[s];
                least += options.empty() ? Cost::kNever : options[0].cost.seconds;
                choices.push_back(&options);
            }
            // Implementations are tried from the cheapest on, until the rest can't be among the best.
            const auto combine = [&](const auto &self, std::size_t k, double before, double rest, bool split) -> void {
                if (k == choices.size()) {
                    // What has no split is the same whatever the number of its parts.
                    if (split || s == 0) best.offer(before, {chosen, before});
                    return;
                }
                const double cheapest = (*choices[k])[0].cost.seconds;
                for (const Option &option : *choices[k]) {
                    const double now = before + option.cost.seconds;
                    if (now + rest - cheapest >= best.limit()) return;
                    chosen.push_back({plan[k].kernels, &plan[k].chosen(), option.implementation, option.cost});
                    self(self, k + 1, now, rest - cheapest, split || option.split);
                    chosen.pop_back();
                }
            };
            if (least < best.limit()) combine(combine, 0, 0, least, false);
        }
    result_.ranked = best.take();
    result_.schedules = scheduler.tried;
}

} // namespace tilesmith
