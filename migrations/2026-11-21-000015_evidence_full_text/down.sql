drop index tasks_full_text_idx;
drop index evidence_full_text_idx;
