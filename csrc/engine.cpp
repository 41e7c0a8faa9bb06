#include "engine.hpp"

#include <algorithm>
#include <iterator>
#include <stdexcept>

#include "rank.hpp"

namespace tilesmith {
namespace {

double seconds_since(Control::Clock::time_point start) {
    return std::chrono::duration<double>(Control::Clock::now() - start).count();
}

} // namespace

Engine::Engine(Request request) : request_(std::move(request)), control_(request_.seconds) {
    // Products of names alone would make a split of one part of everything.
    if (request_.splits.empty()) request_.splits.push_back(1);
    request_.table.stopped = [this] { return control_.poll(); };
}

// False where the table is incomplete.
bool Engine::open() {
    if (ran_) throw std::logic_error("an engine runs once");
    ran_ = true;
    table_ = build_table(request_.program, request_.table);
    result_.table_s = table_.seconds;
    result_.incomplete = table_.incomplete;
    if (!table_.incomplete.empty()) {
        result_.stop = control_.stopped() ? control_.reason() : Stop::incomplete;
        return false;
    }
    space_ = std::make_unique<Space>(request_.program, table_, request_.space);
    return true;
}

const Result &Engine::run() {
    if (!open()) return result_;
    const auto start = Control::Clock::now();
    try {
        if (request_.closure) close();
        else list();
    } catch (const Overflow &overflow) {
        result_.incomplete = overflow.what();
        control_.ask(Stop::incomplete);
    }
    result_.search_s = seconds_since(start);
    result_.stop = control_.reason();
    if (request_.team.ranks) return result_;
    const auto ranking = Control::Clock::now();
    if (request_.closure) derive();
    else if (listing_) rank(listing_->plans());
    result_.rank_s = seconds_since(ranking);
    return result_;
}

void Engine::make() {
    if (request_.closure) {
        const ClosureLimits limits{request_.kernels.block, request_.kernels.inputs};
        closure_ = std::make_unique<Closure>(*space_, limits, control_, request_.team);
        shown_.store(closure_.get(), std::memory_order_release);
    } else {
        listing_ = std::make_unique<Listing>(*space_, request_.kernels, control_, request_.team);
        shown_.store(listing_.get(), std::memory_order_release);
    }
}

void Engine::list() {
    make();
    const auto settle = [&] {
        result_.graphs = listing_->graphs();
        result_.plans = listing_->plans().size();
        result_.workers = listing_->workers();
    };
    try {
        listing_->run();
    } catch (const Overflow &) {
        settle();
        throw;
    }
    settle();
    if (listing_->full()) control_.ask(Stop::graphs);
}

void Engine::tell(std::string_view found) {
    Reader reader(found);
    while (reader.more()) ledger_.add(read_chain(reader, listing_->memo()));
}

void Engine::learn(std::string_view made) {
    if (!served() && open()) make();
    if (Served *search = served()) search->learn(made);
}

void Engine::replay() {
    if (!closure_) return;
    closure_->end();
    close();
}

bool Engine::told_enough() {
    return request_.team.graphs && request_.team.order == Order::dfs && ledger_.has(request_.team.graphs);
}

const Result &Engine::conclude() {
    const auto ranking = Control::Clock::now();
    if (request_.closure) {
        if (closure_) derive();
        result_.rank_s = seconds_since(ranking);
        return result_;
    }
    result_.graphs = 0;
    told_ = ledger_.plans(request_.team.graphs, request_.team.order, result_.graphs);
    result_.plans = told_.size();
    if (request_.team.graphs && result_.graphs >= request_.team.graphs) result_.stop = Stop::graphs;
    if (listing_) {
        rank(told_);
    }
    result_.rank_s = seconds_since(ranking);
    return result_;
}

void Engine::close() {
    if (!closure_) make();
    closure_->run();
    for (const Kernels &kernels : closure_->kernels())
        for (const Signature &signature : kernels.signatures) {
            ++result_.plans;
            result_.graphs += signature.implementations.size();
        }
    result_.workers = closure_->workers();
}

void Engine::derive() {
    Deriver deriver(*space_, *closure_, request_.sizes, request_.device, control_, request_.team.threads);
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

void Engine::rank(const Plans &plans) {
    Ranking ranking =
        tilesmith::rank(*space_, request_.sizes, request_.device, plans, request_.splits, request_.keep);
    result_.ranked = std::move(ranking.graphs);
    result_.implementations = ranking.implementations;
    result_.unfit = ranking.unfit;
    result_.schedules = ranking.schedules;
}

} // namespace tilesmith
