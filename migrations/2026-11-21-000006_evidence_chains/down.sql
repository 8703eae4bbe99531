drop table evidence_chain_links;
drop table evidence_chains;
drop function refuse_evidence_chain_cycle();
